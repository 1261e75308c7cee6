/* fakenvrtc.h - how many programs were compiled since the last reset. */
#ifndef FAKENVRTC_H
#define FAKENVRTC_H

#include <stdint.h>

uint64_t fakenvrtc_count(void);
void fakenvrtc_reset(void);

#endif
