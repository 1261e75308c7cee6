/* os/amx_linux.c - asking Linux for the matrix tiles of x86: the first use of a process needs it.
 */
#include "os/os.h"

#include <sys/syscall.h>
#include <unistd.h>

bool ew_os_grant_amx(void)
{
#if defined(__x86_64__)
    const long req_xcomp_perm = 0x1023, xfeature_tiledata = 18; /* linux/arch/x86 prctl numbers */

    return syscall(SYS_arch_prctl, req_xcomp_perm, xfeature_tiledata) == 0;
#else
    return false;
#endif
}
