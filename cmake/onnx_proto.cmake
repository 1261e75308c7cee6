# src/onnx/onnx.proto (our own statement of the format) -> onnx.pb-c.{h,c} in the build folder.
if(EXISTS ${CMAKE_SOURCE_DIR}/src/onnx/onnx.proto)
    find_program(PROTOC_C NAMES protoc-c REQUIRED)
    set(EW_PROTO_DIR ${CMAKE_BINARY_DIR}/generated)
    file(MAKE_DIRECTORY ${EW_PROTO_DIR})
    add_custom_command(OUTPUT ${EW_PROTO_DIR}/onnx.pb-c.c ${EW_PROTO_DIR}/onnx.pb-c.h
        COMMAND ${PROTOC_C} --c_out=${EW_PROTO_DIR} --proto_path=${CMAKE_SOURCE_DIR}/src/onnx onnx.proto
        DEPENDS ${CMAKE_SOURCE_DIR}/src/onnx/onnx.proto VERBATIM)
    target_sources(ew_onnx PRIVATE ${EW_PROTO_DIR}/onnx.pb-c.c)
    target_include_directories(ew_onnx PRIVATE ${EW_PROTO_DIR})
    set_source_files_properties(${EW_PROTO_DIR}/onnx.pb-c.c PROPERTIES COMPILE_OPTIONS "-w")
endif()
