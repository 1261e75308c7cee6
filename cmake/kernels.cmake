# A file's name says which instruction set it is compiled for: *_avx2.c, *_avxvnni.c, *_avx512.c, *_avx512vnni.c, *_avx512bf16.c; *_dotprod.c, *_i8mm.c (*_neon.c is what
# every AArch64 has). No other file gets such flags.
file(GLOB_RECURSE avx2 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86/*_avx2.c)
file(GLOB_RECURSE avx512 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86/*_avx512.c)
file(GLOB_RECURSE avx512vnni CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86/*_avx512vnni.c)
file(GLOB_RECURSE avx512bf16 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86/*_avx512bf16.c)
file(GLOB_RECURSE avxvnni CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86/*_avxvnni.c)
set(avx512_flags "-mavx512f;-mavx512bw;-mavx512cd;-mavx512dq;-mavx512vl;-mavx2;-mfma;-mf16c;-mbmi2;-mprefer-vector-width=512")
# Partial redundancy elimination takes sums out of registers and into memory: in the tile of 12 rows of int8 it costs 40 %.
set(kept "$<$<C_COMPILER_ID:GNU>:-fno-tree-pre>")
set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2;${kept}")
set_source_files_properties(${avxvnni} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2;-mavxvnni;${kept}")
set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS "${avx512_flags};${kept}")
set_source_files_properties(${avx512vnni} PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512vnni;${kept}")
set_source_files_properties(${avx512bf16} PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512bf16;${kept}")
file(GLOB_RECURSE dotprod CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/arm/*_dotprod.c)
file(GLOB_RECURSE i8mm CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/arm/*_i8mm.c)
set_source_files_properties(${dotprod} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod;${kept}")
set_source_files_properties(${i8mm} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod+i8mm;${kept}")
