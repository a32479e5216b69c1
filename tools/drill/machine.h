/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One machine of qemu for one drill: no network, no devices of the host, its disk served read-only with a throw-away overlay above it. Starts
 * and ends it, and gives its streams; what they say is for others.
 */
#ifndef TOOLS_DRILL_MACHINE_H
#define TOOLS_DRILL_MACHINE_H

#include <limits.h>
#include <sys/types.h>

#include "backup/qmp.h"
#include "drill/evidence.h"

enum drill_accel { DRILL_KVM, DRILL_TCG };
enum drill_bus { DRILL_BUS_UNSAID, DRILL_VIRTIO, DRILL_SATA, DRILL_IDE };
enum drill_firmware { DRILL_FIRMWARE_UNSAID, DRILL_BIOS, DRILL_UEFI };

struct machine_plan {
	const char *socket;             /* where the disk is served over NBD */
	const char *folder;             /* for its sockets, the overlay and pictures; the caller's, who removes it */
	enum drill_accel accel;
	enum drill_bus bus;
	enum drill_firmware firmware;
	unsigned memory_mib;
};
struct machine {
	pid_t pid;                      /* 0: it does not run */
	int serial_fd, firmware_fd, error_fd;   /* what it says; -1: has ended */
	struct qmp *qmp;                /* NULL: not reached yet */
	char qmp_path[PATH_MAX];
};
int machine_start(const struct machine_plan *plan, struct machine *m, struct vd_error *e);
/* Kills what is left of it. */
void machine_stop(struct machine *m);
/* It has ended: *how as of waitpid(). */
bool machine_has_ended(struct machine *m, int *how);
/* Connects to QMP if it is there by now. */
void machine_reach(struct machine *m, void (*on_event)(void *ctx, const char *name), void *ctx);
/* "QEMU emulator version 7.2.19 ...", or "". */
void machine_version(char *text, size_t size);
/* A picture of the screen as PNG into the file. */
int machine_picture(struct machine *m, const char *path, struct vd_error *e);
/* What stands on a text screen (the 4000 bytes of VGA's page), as one stream; nothing where it is in graphics mode. */
void machine_screen_text(struct machine *m, struct evidence *out);

#endif
