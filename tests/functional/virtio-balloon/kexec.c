/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Boot another kernel from the one that runs, without firmware or a reset:
 *
 *   kexec KERNEL INITRD PARAMETERS
 *
 * Both are files.  The drivers of devices are told to shut down, and nothing
 * else is: there is no service here that could be.
 */

#include <err.h>
#include <fcntl.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_file(const char *name)
{
    int fd = open(name, O_RDONLY);

    if (fd < 0) {
        err(2, "%s", name);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        errx(2, "usage: kexec KERNEL INITRD PARAMETERS");
    }
    if (syscall(SYS_kexec_file_load, open_file(argv[1]), open_file(argv[2]),
                strlen(argv[3]) + 1, argv[3], 0L)) {
        err(2, "cannot load %s", argv[1]);
    }
    reboot(RB_KEXEC);
    err(2, "cannot boot %s", argv[1]);
}
