/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypts a secret to OpenPGP keys, as one message that gpg -d opens. GnuPG does the work, through gpgme; the secret goes
 * to it on a pipe.
 *
 *  O1  The keys are those in the files, and no others: they are taken into a folder of GnuPG that is made for this and
 *      removed behind it. No keyring, trust or setting of the user's counts, and nothing is fetched.
 *  O2  A key that has expired, was revoked or cannot encrypt is refused; whether it is whose it says, its file's giver has
 *      vouched for.
 *  O3  SIGPIPE of the application is left as it is: gpgme would have it ignored for the whole process.
 */
#include "libvdisk/core/keysrc.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <gpgme.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_RECIPIENTS 64
#define MAX_KEY_FILE (1 << 20)  /* a key with hundreds of signatures has less */

struct session {
	char home[32];
	gpgme_ctx_t ctx;
	gpgme_key_t keys[MAX_RECIPIENTS + 1];   /* NULL ends them, as gpgme wants it */
	size_t n;
	sigset_t mask;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
	struct sigaction pipe_action;

	sigaction(SIGPIPE, NULL, &pipe_action);
	gpgme_check_version(NULL);
	sigaction(SIGPIPE, &pipe_action, NULL);
}

static int failed(gpgme_error_t err, const char *doing, struct vd_error *e)
{
	if (gpgme_err_code(err) == GPG_ERR_ENOMEM)
		return vd_fail(e, VD_ENOMEM, "not enough memory for %s", doing);
	if (gpgme_err_code(err) == GPG_ERR_INV_ENGINE) {
		vd_fail(e, VD_EUNSUPPORTED, "there is no usable gpg on this machine");
		return vd_hint(e, VD_EUNSUPPORTED, "OpenPGP takes GnuPG 2: install gnupg, or escrow to recipients of age");
	}
	return vd_fail(e, VD_EFAILED, "%s: gpg says: %s", doing, gpgme_strerror(err));
}

/* ---- a GnuPG of our own -------------------------------------------------------------------------------------- */

/* No agent: public keys need none, and it would outlive the folder. */
static int write_settings(const char *home, struct vd_error *e)
{
	static const char settings[] = "no-autostart\nno-auto-key-locate\nno-auto-check-trustdb\n";
	vd_auto_fd int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "%s/gpg.conf", home);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, settings, sizeof(settings) - 1) != sizeof(settings) - 1)
		return vd_fail_errno(e, errno, "writing %s", path);
	return 0;
}

static int session_begin(struct session *s, struct vd_error *e)
{
	gpgme_error_t err;
	sigset_t pipe_signal;
	int r;

	pthread_once(&once, init);
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, &s->mask);
	snprintf(s->home, sizeof(s->home), "/tmp/vdisk-gpg-XXXXXX");
	if (!mkdtemp(s->home)) {
		s->home[0] = '\0';
		return vd_fail_errno(e, errno, "making a folder for GnuPG in /tmp");
	}
	r = write_settings(s->home, e);
	if (r < 0)
		return r;
	err = gpgme_new(&s->ctx);
	if (!err)
		err = gpgme_ctx_set_engine_info(s->ctx, GPGME_PROTOCOL_OpenPGP, NULL, s->home);
	if (!err)
		err = gpgme_set_protocol(s->ctx, GPGME_PROTOCOL_OpenPGP);
	if (err)
		return failed(err, "starting GnuPG", e);
	gpgme_set_offline(s->ctx, 1);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	remove(path);
	return 0;
}

/* A SIGPIPE that came meanwhile, of a gpg that ended early, is taken before it can be delivered. */
static void session_end(struct session *s)
{
	static const struct timespec no_wait;
	sigset_t pipe_signal;

	for (size_t i = 0; i < s->n; i++)
		gpgme_key_unref(s->keys[i]);
	if (s->ctx)
		gpgme_release(s->ctx);
	if (s->home[0])
		nftw(s->home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	if (!sigismember(&s->mask, SIGPIPE))
		(void)!sigtimedwait(&pipe_signal, NULL, &no_wait);
	pthread_sigmask(SIG_SETMASK, &s->mask, NULL);
}
#define auto_session __attribute__((cleanup(session_end)))

/* ---- recipients ---------------------------------------------------------------------------------------------- */

static int judge_key(const gpgme_key_t key, const char *path, struct vd_error *e)
{
	const char *who = key->uids && key->uids->uid ? key->uids->uid : key->fpr;
	const char *why = key->revoked ? "was revoked" : key->expired ? "has expired" : key->disabled ? "is disabled" :
			  key->invalid ? "is not valid" : !key->can_encrypt ? "has no part that can encrypt" : NULL;

	if (!why)
		return 0;
	vd_fail(e, VD_EARG, "%s: the OpenPGP key of %.80s %s", path, who, why);
	return vd_hint(e, VD_EARG, "ask for a key that is in use: nothing was written");
}

static int take_key(struct session *s, const char *fingerprint, const char *path, struct vd_error *e)
{
	gpgme_error_t err;

	if (s->n == MAX_RECIPIENTS)
		return vd_fail(e, VD_EARG, "more than %d OpenPGP keys are given", MAX_RECIPIENTS);
	err = gpgme_get_key(s->ctx, fingerprint, &s->keys[s->n], 0);
	if (err)
		return failed(err, "reading an OpenPGP key", e);
	return judge_key(s->keys[s->n++], path, e);
}

static int open_key_file(const char *path, gpgme_data_t *data, int *fd, struct vd_error *e)
{
	gpgme_error_t err;
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (*fd < 0 || fstat(*fd, &st) < 0)
		return vd_fail_errno(e, errno, "opening the OpenPGP key in %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_KEY_FILE)
		return vd_fail(e, VD_EARG, "%s: a file of OpenPGP keys has at most %d bytes", path, MAX_KEY_FILE);
	err = gpgme_data_new_from_fd(data, *fd);
	return err ? failed(err, "reading an OpenPGP key", e) : 0;
}

static int take_file(struct session *s, const char *path, struct vd_error *e)
{
	gpgme_data_t data = NULL;
	vd_auto_fd int fd = -1;
	gpgme_import_result_t found;
	gpgme_error_t err;
	int r = open_key_file(path, &data, &fd, e);

	if (r < 0)
		return r;
	err = gpgme_op_import(s->ctx, data);
	gpgme_data_release(data);
	found = err ? NULL : gpgme_op_import_result(s->ctx);
	if (gpgme_err_code(err) == GPG_ERR_INV_ENGINE)
		return failed(err, "reading an OpenPGP key", e);
	if (found && found->secret_read)
		return vd_fail(e, VD_EARG, "%s holds a private key: give the public one, which gpg --export writes", path);
	if (!found || !found->imports)
		return vd_fail(e, VD_EARG, "%s holds no OpenPGP public key", path);
	for (gpgme_import_status_t i = found->imports; i && r == 0; i = i->next)
		r = take_key(s, i->fpr, path, e);
	return r;
}

/* ---- the message --------------------------------------------------------------------------------------------- */

static int take_message(gpgme_data_t sealed, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	size_t len;
	char *bytes = gpgme_data_release_and_get_mem(sealed, &len);
	int r = bytes && len ? vd_alloc(1, len, out, e) : vd_fail(e, VD_EFAILED, "gpg has made no message");

	if (r == 0) {
		memcpy(*out, bytes, len);
		*out_len = len;
	}
	gpgme_free(bytes);
	return r;
}

static int encrypt(struct session *s, struct vd_bytes secret, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	gpgme_data_t plain = NULL, sealed = NULL;
	gpgme_error_t err = gpgme_data_new_from_mem(&plain, (const char *)secret.p, secret.len, 0);

	if (!err)
		err = gpgme_data_set_flag(plain, "sensitive", "1");
	if (!err)
		err = gpgme_data_new(&sealed);
	if (!err)
		err = gpgme_op_encrypt(s->ctx, s->keys, GPGME_ENCRYPT_ALWAYS_TRUST | GPGME_ENCRYPT_NO_ENCRYPT_TO, plain, sealed);
	if (!err && gpgme_op_encrypt_result(s->ctx)->invalid_recipients)
		err = gpgme_error(GPG_ERR_UNUSABLE_PUBKEY);
	if (plain)
		gpgme_data_release(plain);
	if (!err)
		return take_message(sealed, out, out_len, e);
	if (sealed)
		gpgme_data_release(sealed);
	return failed(err, "encrypting to OpenPGP keys", e);
}

int vd_openpgp_seal(const struct vd_key *key, const char *const *files, size_t n, uint8_t **out, size_t *out_len,
		    struct vd_error *e)
{
	auto_session struct session s = { .home = "" };
	int r = session_begin(&s, e);

	for (size_t i = 0; i < n && r == 0; i++)
		r = take_file(&s, files[i], e);
	return r < 0 ? r : encrypt(&s, vd_key_bytes(key), out, out_len, e);
}
