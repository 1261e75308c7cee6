# CUDA sources travel inside the library as text: the builder compiles them on the machine with the GPU.
file(GLOB cuda_texts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*.cu ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*.cuh)
set(cuda_table ${CMAKE_BINARY_DIR}/cuda_texts.c)
add_custom_command(
    OUTPUT ${cuda_table}
    COMMAND ${CMAKE_COMMAND} -DOUT=${cuda_table} "-DFILES=${cuda_texts}" -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${cuda_texts} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
    VERBATIM)
target_sources(ew_kernels PRIVATE ${cuda_table})
