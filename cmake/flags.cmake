# Flags of every target of ours.
add_library(ew_flags INTERFACE)
target_include_directories(ew_flags INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(ew_flags INTERFACE _GNU_SOURCE)
target_compile_options(ew_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
    -Wformat=2 -Wno-sign-conversion -fno-math-errno -ffp-contract=off)
if(EW_WERROR)
    target_compile_options(ew_flags INTERFACE -Werror)
endif()
if(EW_SANITIZE_ADDRESS)
    target_compile_options(ew_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined
        -fno-omit-frame-pointer)
    target_link_options(ew_flags INTERFACE -fsanitize=address,undefined)
endif()
if(EW_SANITIZE_THREAD)
    target_compile_options(ew_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
    target_link_options(ew_flags INTERFACE -fsanitize=thread)
endif()
if(EW_FUZZ)
    target_compile_options(ew_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
        -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
    target_link_options(ew_flags INTERFACE -fsanitize=address,undefined)
endif()
