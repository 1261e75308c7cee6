/* fakenvtx.h - ranges that were pushed since the last reset, the first FAKENVTX_NAMES of them. */
#ifndef FAKENVTX_H
#define FAKENVTX_H

#define FAKENVTX_NAMES    1024
#define FAKENVTX_NAME_CAP 96

const char *fakenvtx_name(unsigned i); /* NULL past the end */
int fakenvtx_depth(void);              /* ranges that are open */
void fakenvtx_reset(void);

#endif
