/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-key-tpm2: has secrets sealed by the TPM 2.0 of this machine, which gives them back while its PCRs have the values
 * of then.
 *
 *   token = { "helper": "tpm2", "machine-bound": true, "pcrs": [7], "primary": name, "public": ..., "private": ... }
 *
 * The parent is a storage primary of the owner hierarchy, made anew each time from the TPM's seed. Its name, a hash that no
 * other TPM has, is in the token: so it is known that the token is this machine's, and the sessions are encrypted to the TPM
 * that has sealed the secret and not to what sits on the bus. The rest is the TPM's: public and private part of an object
 * that it has made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include "keyhelpers/options.h"
#include "keyhelpers/protocol.h"

#define DEFAULT_TIMEOUT 30      /* seconds; a slow TPM takes two for its primary key */
#define N_PCRS 24               /* of the PC client platform */
#define SEALED_MAX 128          /* MAX_SYM_DATA: what an object can hold (TPM 2.0 part 2, 11.1.15) */
#define PART_MAX 1024           /* bytes of a public or private part; they have about 80 and 220 */

struct settings {
	const char *tcti, *pcrs;
	unsigned timeout;
};

/* All that holds secrets, in one place that is locked and wiped. */
static struct {
	TPM2B_SENSITIVE_CREATE sensitive;
	struct protocol_request request;
} memory;

/* What is loaded into the TPM has to go from there, however this ends: not every TPM has a resource manager before it. */
static struct {
	TSS2_TCTI_CONTEXT *tcti;
	ESYS_CONTEXT *esys;
	ESYS_TR loaded[4];
	unsigned n_loaded;
} tpm;

static void close_tpm(void)
{
	while (tpm.n_loaded)
		Esys_FlushContext(tpm.esys, tpm.loaded[--tpm.n_loaded]);
	Esys_Finalize(&tpm.esys);
	Tss2_TctiLdr_Finalize(&tpm.tcti);
}

static void note_loaded(ESYS_TR handle)
{
	tpm.loaded[tpm.n_loaded++] = handle;
}

/* Codes of the TPM itself, with what they say of parameters and sessions left out (part 2, 6.6). */
static TSS2_RC reason(TSS2_RC rc)
{
	return rc & TPM2_RC_FMT1 ? rc & (TPM2_RC_FMT1 | 0x3f) : rc;
}

static void must(TSS2_RC rc, const char *what)
{
	if (rc == TSS2_RC_SUCCESS)
		return;
	if (reason(rc) == TPM2_RC_LOCKOUT || reason(rc) == TPM2_RC_AUTH_FAIL || reason(rc) == TPM2_RC_BAD_AUTH)
		protocol_fail(PROTOCOL_DENIED, "%s: %s", what, Tss2_RC_Decode(rc));
	protocol_fail(PROTOCOL_FAILED, "%s: %s", what, Tss2_RC_Decode(rc));
}

static void open_tpm(const char *tcti)
{
	TSS2_RC rc;

	/* Its words would stand beside ours, on errors that are expected, too. */
	setenv("TSS2_LOG", "all+none", 0);
	rc = Tss2_TctiLdr_Initialize(tcti, &tpm.tcti);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_Initialize(&tpm.esys, tpm.tcti, NULL);
	if (rc != TSS2_RC_SUCCESS)
		protocol_fail(PROTOCOL_UNAVAILABLE, "no TPM can be opened%s%s: %s", tcti ? " by " : "", tcti ? tcti : "", Tss2_RC_Decode(rc));
	atexit(close_tpm);
}

/* ---- what all acts need --------------------------------------------------------------------------------- */

/* The storage primary of the TCG's default ECC template; its name in hexadecimal digits. */
static ESYS_TR make_primary(char name[2 * sizeof(TPMU_NAME) + 1])
{
	static const TPM2B_SENSITIVE_CREATE no_auth;
	static const TPM2B_DATA no_data;
	static const TPML_PCR_SELECTION no_pcrs;
	static const TPM2B_PUBLIC wanted = { .publicArea = {
		.type = TPM2_ALG_ECC, .nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
				    TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA,
		.parameters.eccDetail = {
			.symmetric = { .algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB },
			.scheme.scheme = TPM2_ALG_NULL, .curveID = TPM2_ECC_NIST_P256, .kdf.scheme = TPM2_ALG_NULL,
		},
	} };
	TPM2B_NAME *bytes = NULL;
	ESYS_TR primary;
	TSS2_RC rc = Esys_CreatePrimary(tpm.esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &no_auth, &wanted,
					&no_data, &no_pcrs, &primary, NULL, NULL, NULL, NULL);

	if (reason(rc) == TPM2_RC_BAD_AUTH || reason(rc) == TPM2_RC_AUTH_FAIL)
		protocol_fail(PROTOCOL_FAILED, "the TPM's owner hierarchy has a password, which this program has no use for");
	must(rc, "making a primary key");
	note_loaded(primary);
	must(Esys_TR_GetName(tpm.esys, primary, &bytes), "naming the primary key");
	for (unsigned i = 0; i < bytes->size; i++)
		sprintf(name + (size_t)2 * i, "%02x", bytes->name[i]);
	Esys_Free(bytes);
	return primary;
}

/* Salted by the primary's public part, so that what goes over the bus cannot be read there. */
static ESYS_TR start_session(ESYS_TR primary, TPM2_SE type, TPMA_SESSION attributes)
{
	static const TPMT_SYM_DEF aes = { .algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB };
	ESYS_TR session;

	must(Esys_StartAuthSession(tpm.esys, primary, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, type, &aes,
				   TPM2_ALG_SHA256, &session), "starting a session");
	note_loaded(session);
	must(Esys_TRSess_SetAttributes(tpm.esys, session, attributes | TPMA_SESSION_CONTINUESESSION, 0xff), "preparing a session");
	return session;
}

static TPML_PCR_SELECTION selection_of(uint32_t pcrs)
{
	TPML_PCR_SELECTION s = { .count = 1, .pcrSelections[0] = { .hash = TPM2_ALG_SHA256, .sizeofSelect = N_PCRS / 8 } };

	for (unsigned i = 0; i < N_PCRS / 8; i++)
		s.pcrSelections[0].pcrSelect[i] = (uint8_t)(pcrs >> (8 * i));
	return s;
}

/*
 * A TPM passes over PCRs that it does not have, and a policy without any would always be met. One that is zero says that
 * nothing has been measured into it, and so protects from little.
 */
static void judge_pcrs(uint32_t pcrs)
{
	for (unsigned i = 0; i < N_PCRS; i++) {
		TPML_PCR_SELECTION one = selection_of(1u << i);
		TPML_DIGEST *values = NULL;
		bool is_zero = true;

		if (!(pcrs >> i & 1))
			continue;
		must(Esys_PCR_Read(tpm.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &one, NULL, NULL, &values), "reading PCRs");
		if (values->count != 1)
			protocol_fail(PROTOCOL_FAILED, "this TPM has no SHA-256 PCR %u", i);
		for (unsigned k = 0; k < values->digests[0].size; k++)
			is_zero &= values->digests[0].buffer[k] == 0;
		if (is_zero)
			fprintf(stderr, "vdisk-key-tpm2: warning: nothing has been measured into PCR %u\n", i);
		Esys_Free(values);
	}
}

static void bind_to_pcrs(ESYS_TR session, uint32_t pcrs)
{
	static const TPM2B_DIGEST of_now;
	TPML_PCR_SELECTION selection = selection_of(pcrs);

	must(Esys_PolicyPCR(tpm.esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &of_now, &selection), "reading PCRs");
}

/* ---- sealing -------------------------------------------------------------------------------------------- */

static void put_object(struct json_object *token, const TPM2B_PUBLIC *public, const TPM2B_PRIVATE *private)
{
	uint8_t bytes[PART_MAX];
	size_t len = 0;

	must(Tss2_MU_TPM2B_PUBLIC_Marshal(public, bytes, sizeof(bytes), &len), "writing the public part");
	protocol_put_bytes(token, "public", bytes, len);
	len = 0;
	must(Tss2_MU_TPM2B_PRIVATE_Marshal(private, bytes, sizeof(bytes), &len), "writing the private part");
	protocol_put_bytes(token, "private", bytes, len);
}

static TPM2B_PUBLIC template_of(ESYS_TR primary, uint32_t pcrs)
{
	TPM2B_PUBLIC public = { .publicArea = {
		.type = TPM2_ALG_KEYEDHASH, .nameAlg = TPM2_ALG_SHA256, .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT,
		.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL,
	} };
	ESYS_TR trial = start_session(primary, TPM2_SE_TRIAL, 0);
	TPM2B_DIGEST *policy = NULL;

	bind_to_pcrs(trial, pcrs);
	must(Esys_PolicyGetDigest(tpm.esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &policy), "making a policy");
	public.publicArea.authPolicy = *policy;
	Esys_Free(policy);
	return public;
}

static uint32_t parse_pcrs(const char *text)
{
	uint32_t pcrs = 0;
	char *end;

	do {
		unsigned long n = strtoul(text, &end, 10);

		if (*text < '0' || *text > '9' || n >= N_PCRS || (*end && *end != ','))
			protocol_fail(PROTOCOL_FAILED, "--pcrs: numbers from 0 to %d with commas between are wanted", N_PCRS - 1);
		pcrs |= 1u << n;
		text = end + 1;
	} while (*end);
	return pcrs;
}

static void seal(const struct settings *s, const struct protocol_request *request)
{
	static const TPM2B_DATA no_data;
	static const TPML_PCR_SELECTION no_pcrs;
	struct json_object *token = json_object_new_object(), *list = json_object_new_array();
	uint32_t pcrs = parse_pcrs(s->pcrs);
	char name[2 * sizeof(TPMU_NAME) + 1];
	TPM2B_PUBLIC public, *made = NULL;
	TPM2B_PRIVATE *private = NULL;
	ESYS_TR primary, session;

	if (request->secret_len > SEALED_MAX)
		protocol_fail(PROTOCOL_FAILED, "a TPM seals at most %d bytes", SEALED_MAX);
	open_tpm(s->tcti);
	judge_pcrs(pcrs);
	primary = make_primary(name);
	public = template_of(primary, pcrs);
	session = start_session(primary, TPM2_SE_HMAC, TPMA_SESSION_DECRYPT);
	memory.sensitive.sensitive.data.size = (uint16_t)request->secret_len;
	memcpy(memory.sensitive.sensitive.data.buffer, request->secret, request->secret_len);
	must(Esys_Create(tpm.esys, primary, session, ESYS_TR_NONE, ESYS_TR_NONE, &memory.sensitive, &public, &no_data, &no_pcrs,
			 &private, &made, NULL, NULL, NULL), "sealing the secret");
	protocol_put_text(token, "helper", "tpm2");
	json_object_object_add(token, "machine-bound", json_object_new_boolean(true));
	for (int i = 0; i < N_PCRS; i++)
		if (pcrs >> i & 1)
			json_object_array_add(list, json_object_new_int(i));
	json_object_object_add(token, "pcrs", list);
	protocol_put_text(token, "primary", name);
	put_object(token, made, private);
	Esys_Free(made);
	Esys_Free(private);
	protocol_reply_token(token);
}

/* ---- opening -------------------------------------------------------------------------------------------- */

_Noreturn static void damaged(void)
{
	protocol_fail(PROTOCOL_FAILED, "the token is damaged");
}

static void take_object(struct json_object *token, TPM2B_PUBLIC *public, TPM2B_PRIVATE *private)
{
	uint8_t bytes[PART_MAX];
	size_t len, used = 0;

	if (!protocol_bytes(token, "public", bytes, sizeof(bytes), &len) ||
	    Tss2_MU_TPM2B_PUBLIC_Unmarshal(bytes, len, &used, public) != TSS2_RC_SUCCESS || used != len)
		damaged();
	used = 0;
	if (!protocol_bytes(token, "private", bytes, sizeof(bytes), &len) ||
	    Tss2_MU_TPM2B_PRIVATE_Unmarshal(bytes, len, &used, private) != TSS2_RC_SUCCESS || used != len)
		damaged();
}

static uint32_t take_pcrs(struct json_object *token)
{
	struct json_object *list;
	uint32_t pcrs = 0;

	if (!json_object_object_get_ex(token, "pcrs", &list) || !json_object_is_type(list, json_type_array) ||
	    json_object_array_length(list) > N_PCRS)
		damaged();
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *number = json_object_array_get_idx(list, i);
		int64_t n = json_object_is_type(number, json_type_int) ? json_object_get_int64(number) : -1;

		if (n < 0 || n >= N_PCRS)
			damaged();
		pcrs |= 1u << n;
	}
	if (!pcrs)
		damaged();
	return pcrs;
}

static void unseal(ESYS_TR object, ESYS_TR policy)
{
	TPM2B_SENSITIVE_DATA *data = NULL;
	TSS2_RC rc = Esys_Unseal(tpm.esys, object, policy, ESYS_TR_NONE, ESYS_TR_NONE, &data);

	if (reason(rc) == TPM2_RC_POLICY_FAIL || rc == TPM2_RC_PCR_CHANGED)
		protocol_fail(PROTOCOL_DENIED, "the TPM's PCRs have other values than when the secret was sealed");
	must(rc, "opening the secret");
	if (!data->size)
		damaged();
	protocol_reply_secret(data->buffer, data->size);
	explicit_bzero(data, sizeof(*data));
	Esys_Free(data);
}

static void open_token(const struct settings *s, const struct protocol_request *request)
{
	const char *wanted = protocol_text(request->token, "primary");
	uint32_t pcrs = take_pcrs(request->token);
	TPM2B_PUBLIC public = { 0 };
	TPM2B_PRIVATE private = { 0 };
	char name[2 * sizeof(TPMU_NAME) + 1];
	ESYS_TR primary, object, session;
	TSS2_RC rc;

	take_object(request->token, &public, &private);
	if (!wanted || public.publicArea.type != TPM2_ALG_KEYEDHASH)
		damaged();
	open_tpm(s->tcti);
	primary = make_primary(name);
	if (strcmp(name, wanted) != 0)
		protocol_fail(PROTOCOL_NO_MATCH, "the token is of another machine's TPM");
	session = start_session(primary, TPM2_SE_HMAC, 0);
	rc = Esys_Load(tpm.esys, primary, session, ESYS_TR_NONE, ESYS_TR_NONE, &private, &public, &object);
	if (reason(rc) == TPM2_RC_INTEGRITY)
		damaged();
	must(rc, "loading the token");
	note_loaded(object);
	session = start_session(primary, TPM2_SE_POLICY, TPMA_SESSION_ENCRYPT);
	bind_to_pcrs(session, pcrs);
	unseal(object, session);
}

/* ---- options -------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: vdisk-key-tpm2 [--pcrs N,N...] [--tcti NAME[:CONFIG]] [--timeout SECONDS]\n"
	"Seals and opens secrets for vdisk's --new-key-command and --key-command.\n";

static void parse(int argc, char **argv, struct settings *s)
{
	const char *timeout = NULL;
	const struct options_entry table[] = { { "pcrs", &s->pcrs }, { "tcti", &s->tcti }, { "timeout", &timeout }, { 0 } };
	int behind = options_take(argc, argv, table, usage);

	if (behind < argc)
		protocol_fail(PROTOCOL_FAILED, "'%s' is no option", argv[behind]);
	s->timeout = options_timeout(timeout, DEFAULT_TIMEOUT);
}

int main(int argc, char **argv)
{
	struct settings s = { .pcrs = "7" };

	protocol_guard(&memory, sizeof(memory));
	parse(argc, argv, &s);
	protocol_read(&memory.request, "tpm2");
	protocol_deadline(s.timeout, "the TPM");
	if (memory.request.is_seal)
		seal(&s, &memory.request);
	else
		open_token(&s, &memory.request);
	explicit_bzero(&memory, sizeof(memory));
	return 0;
}
