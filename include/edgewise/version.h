/* edgewise/version.h - the one place that states the version. */
#ifndef EW_VERSION_H
#define EW_VERSION_H

#define EW_VERSION_MAJOR  0
#define EW_VERSION_MINOR  1
#define EW_VERSION_PATCH  0
#define EW_VERSION_STRING "0.1.0"

#endif
