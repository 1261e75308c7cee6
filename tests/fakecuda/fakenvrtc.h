/* fakenvrtc.h - a compiler that makes nothing: how many programs were compiled since the last
 * reset, and which build it says it is. */
#ifndef FAKENVRTC_H
#define FAKENVRTC_H

#include <stdint.h>

uint64_t fakenvrtc_count(void);
void fakenvrtc_reset(void);
/* Of compilers opened from now on; a literal, "" for one that does not say. */
void fakenvrtc_build(const char *text);

#endif
