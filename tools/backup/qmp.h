/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of qemu's machine protocol, and of the guest agent's, which is the same in small: a JSON object a line over a Unix socket. What the
 * commands do is others' to know.
 */
#ifndef TOOLS_BACKUP_QMP_H
#define TOOLS_BACKUP_QMP_H

#include <json-c/json.h>
#include <vdisk.h>

struct qmp;

/* Qemu's, which greets: VD_EBUSY, when it does not, since it speaks to one client at a time. */
int qmp_connect(const char *socket, struct qmp **out, struct vd_error *e);
/* The guest agent's, which does not. VD_EIO: nobody in the guest answers. */
int qmp_connect_agent(const char *socket, struct qmp **out, struct vd_error *e);
/* NULL is allowed. */
void qmp_close(struct qmp *q);
int qmp_fd(const struct qmp *q);
/* Called for every event that comes while an answer is awaited, or by qmp_listen(). */
void qmp_on_event(struct qmp *q, void (*on_event)(void *ctx, const char *name), void *ctx);
/* Takes what has come. VD_EIO: the connection is gone. */
int qmp_listen(struct qmp *q, struct vd_error *e);

/*
 * `arguments` may be NULL, and is taken. *result (NULL: not wanted) is the caller's to put. VD_EFAILED: it was refused, in qemu's words; VD_EIO: no
 * answer in so many seconds, or none that can be read.
 */
int qmp_run(struct qmp *q, const char *command, struct json_object *arguments, unsigned seconds, struct json_object **result, struct vd_error *e);

#endif
