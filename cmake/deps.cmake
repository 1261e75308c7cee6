# Debian packages, found through pkg-config (scripts/setup.sh installs them).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(EW_PKG REQUIRED IMPORTED_TARGET libprotobuf-c jansson libpcre2-8 libutf8proc libxxhash)
pkg_check_modules(EW_EDIT REQUIRED IMPORTED_TARGET libedit)
add_library(ew_deps INTERFACE)
target_link_libraries(ew_deps INTERFACE PkgConfig::EW_PKG Threads::Threads m ${CMAKE_DL_LIBS})
