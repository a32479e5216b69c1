/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-key-pkcs11: has secrets encrypted and decrypted by a key on a smart card or HSM that speaks PKCS#11.
 *
 *   token = { "helper": "pkcs11", "mechanism": "rsa-oaep-sha256" | "rsa-oaep-sha1" | "aes-gcm", "id": CKA_ID in hex,
 *             "data": ciphertext, "iv": for aes-gcm }
 *
 * Which module, which card and which keys there are used comes from the options alone. A token from an image picks among
 * these keys by its id; the PIN goes to the one card that the options name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>

#include "keyhelpers/options.h"
#include "keyhelpers/pin.h"
#include "keyhelpers/protocol.h"

#define DEFAULT_TIMEOUT 30      /* seconds, once the PIN is there */
#define ID_MAX 64               /* bytes of a key's id */
#define DATA_MAX 1024           /* of a ciphertext: RSA with 8192 bits */
#define IV_LEN 12               /* of AES-GCM, which wants this length (NIST SP 800-38D, 8.2.2) */
#define TAG_BITS 128
#define AAD "vdisk-key-pkcs11"
#define SLOTS_MAX 256

struct settings {
	const char *uri, *module, *pin_file;
	unsigned timeout;
};

/* All that holds secrets, in one place that is locked and wiped. */
static struct {
	uint8_t pin[PIN_MAX];
	uint8_t secret[DATA_MAX];
	struct protocol_request request;
} memory;

/* The one card that the options name. */
static struct {
	P11KitUri *uri;
	CK_FUNCTION_LIST **modules, *named[2];  /* all that p11-kit has, or the one that --module names and the end mark */
	CK_FUNCTION_LIST *module;
	CK_SLOT_ID slot;
	CK_TOKEN_INFO info;
	CK_SESSION_HANDLE session;
	char name[64];
} card;

enum mechanism { RSA_OAEP_SHA256, RSA_OAEP_SHA1, AES_GCM, N_MECHANISMS };
static const char *const mechanism_names[] = { "rsa-oaep-sha256", "rsa-oaep-sha1", "aes-gcm" };

struct wrapped {
	enum mechanism mechanism;
	uint8_t id[ID_MAX], data[DATA_MAX], iv[IV_LEN];
	size_t id_len, data_len;
};

static void must(CK_RV rv, const char *what)
{
	if (rv == CKR_OK)
		return;
	if (rv == CKR_DEVICE_REMOVED || rv == CKR_TOKEN_NOT_PRESENT || rv == CKR_DEVICE_ERROR)
		protocol_fail(PROTOCOL_UNAVAILABLE, "%s: %s: %s", card.name, what, p11_kit_strerror(rv));
	protocol_fail(PROTOCOL_FAILED, "%s: %s: %s", card.name, what, p11_kit_strerror(rv));
}

/* ---- the card ------------------------------------------------------------------------------------------- */

/* However this ends: a card may count its sessions, and a module may hold locks. */
static void close_card(void)
{
	if (card.modules == card.named) {
		p11_kit_module_finalize(card.named[0]);
		p11_kit_module_release(card.named[0]);
	} else if (card.modules) {
		p11_kit_modules_finalize_and_release(card.modules);
	}
	p11_kit_uri_free(card.uri);
}

static void parse_uri(const char *text)
{
	int r;

	card.uri = p11_kit_uri_new();
	r = card.uri ? p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, card.uri) : P11_KIT_URI_UNEXPECTED;
	if (r != P11_KIT_URI_OK)
		protocol_fail(PROTOCOL_FAILED, "--uri: %s", p11_kit_uri_message(r));
	if (p11_kit_uri_any_unrecognized(card.uri))
		protocol_fail(PROTOCOL_FAILED, "--uri: a part of it is not known");
	if (p11_kit_uri_get_pin_value(card.uri) || p11_kit_uri_get_pin_source(card.uri))
		protocol_fail(PROTOCOL_FAILED, "--uri: a PIN there is seen by every user of this machine: use --pin-file");
	if (p11_kit_uri_get_module_path(card.uri) || p11_kit_uri_get_module_name(card.uri))
		protocol_fail(PROTOCOL_FAILED, "--uri: a module is named with --module");
}

static void load_modules(const char *path)
{
	CK_RV rv;

	if (!path) {
		card.modules = p11_kit_modules_load_and_initialize(0);
		if (!card.modules)
			protocol_fail(PROTOCOL_UNAVAILABLE, "no module of p11-kit can be loaded");
		return;
	}
	card.named[0] = p11_kit_module_load(path, 0);
	if (!card.named[0])
		protocol_fail(PROTOCOL_UNAVAILABLE, "%s: it is no PKCS#11 module that can be loaded", path);
	rv = p11_kit_module_initialize(card.named[0]);
	if (rv != CKR_OK)
		protocol_fail(PROTOCOL_UNAVAILABLE, "%s: %s", path, p11_kit_strerror(rv));
	card.modules = card.named;
}

/* Cards of the module that the URI names; how many there are with those found before. */
static unsigned look_into(CK_FUNCTION_LIST *module, unsigned found)
{
	CK_SLOT_ID slots[SLOTS_MAX];
	CK_ULONG n = SLOTS_MAX;
	CK_TOKEN_INFO info;
	CK_INFO about;

	if (module->C_GetInfo(&about) != CKR_OK || !p11_kit_uri_match_module_info(card.uri, &about) ||
	    module->C_GetSlotList(CK_TRUE, slots, &n) != CKR_OK)
		return found;
	for (CK_ULONG i = 0; i < n; i++) {
		if (module->C_GetTokenInfo(slots[i], &info) != CKR_OK || !(info.flags & CKF_TOKEN_INITIALIZED) ||
		    !p11_kit_uri_match_token_info(card.uri, &info))
			continue;
		found++;
		card.module = module;
		card.slot = slots[i];
		card.info = info;
	}
	return found;
}

static void open_card(const struct settings *s)
{
	unsigned found = 0;
	int len = sizeof(card.info.label);

	load_modules(s->module);
	/* Only now: libraries of theirs have handlers as well, which have to run behind this one. */
	atexit(close_card);
	for (size_t i = 0; card.modules[i]; i++)
		found = look_into(card.modules[i], found);
	if (!found)
		protocol_fail(PROTOCOL_UNAVAILABLE, "no card or token that %s names is there", s->uri);
	if (found > 1)
		protocol_fail(PROTOCOL_FAILED, "%s names %u cards or tokens: a serial= makes it one", s->uri, found);
	while (len && card.info.label[len - 1] == ' ')
		len--;
	snprintf(card.name, sizeof(card.name), "%.*s", len, (const char *)card.info.label);
	must(card.module->C_OpenSession(card.slot, CKF_SERIAL_SESSION, NULL, NULL, &card.session), "opening a session");
}

/* A PIN that was wrong once must not be tried again by a program until it is used up: an image may have many tokens. */
static void judge_tries(const char *pin_file)
{
	if (card.info.flags & CKF_USER_PIN_LOCKED)
		protocol_fail(PROTOCOL_DENIED, "%s: its PIN is locked", card.name);
	if (pin_file && card.info.flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY))
		protocol_fail(PROTOCOL_DENIED, "%s: a wrong PIN was given before, so that in %s is not tried: once type it, without --pin-file",
			      card.name, pin_file);
}

static void log_in(const struct settings *s)
{
	bool has_keypad = card.info.flags & CKF_PROTECTED_AUTHENTICATION_PATH;
	size_t len = 0;
	CK_RV rv;

	if (!(card.info.flags & CKF_LOGIN_REQUIRED))
		return;
	judge_tries(s->pin_file);
	if (s->pin_file)
		len = pin_from_file(s->pin_file, memory.pin);
	else if (!has_keypad)
		len = pin_from_terminal(card.name, memory.pin);
	protocol_deadline(s->timeout, card.name);
	rv = card.module->C_Login(card.session, CKU_USER, len ? memory.pin : NULL, len);
	explicit_bzero(memory.pin, sizeof(memory.pin));
	if (rv == CKR_PIN_INCORRECT || rv == CKR_PIN_LEN_RANGE || rv == CKR_PIN_INVALID)
		protocol_fail(PROTOCOL_DENIED, "%s: the PIN is wrong", card.name);
	if (rv == CKR_PIN_LOCKED || rv == CKR_PIN_EXPIRED || rv == CKR_FUNCTION_CANCELED)
		protocol_fail(PROTOCOL_DENIED, "%s: %s", card.name, p11_kit_strerror(rv));
	if (rv != CKR_USER_ALREADY_LOGGED_IN)
		must(rv, "logging in");
}

/* ---- keys ----------------------------------------------------------------------------------------------- */

/* How many keys of this kind the URI names, 2 meaning several; of a wrapped secret only those of its id. */
static unsigned find_key(CK_OBJECT_CLASS class, CK_KEY_TYPE type, const struct wrapped *w, CK_OBJECT_HANDLE *key)
{
	CK_ATTRIBUTE wanted[6] = {
		{ CKA_CLASS, &class, sizeof(class) }, { CKA_KEY_TYPE, &type, sizeof(type) },
	}, *label = p11_kit_uri_get_attribute(card.uri, CKA_LABEL), *id = p11_kit_uri_get_attribute(card.uri, CKA_ID);
	CK_OBJECT_HANDLE found[2];
	CK_ULONG n = 2, n_found = 0;

	if (label)
		wanted[n++] = *label;
	if (id)
		wanted[n++] = *id;
	if (w)
		wanted[n++] = (CK_ATTRIBUTE){ CKA_ID, (void *)w->id, w->id_len };
	must(card.module->C_FindObjectsInit(card.session, wanted, n), "looking for a key");
	must(card.module->C_FindObjects(card.session, found, 2, &n_found), "looking for a key");
	card.module->C_FindObjectsFinal(card.session);
	*key = n_found ? found[0] : 0;
	return (unsigned)n_found;
}

static bool may_be(CK_OBJECT_CLASS class)
{
	CK_ATTRIBUTE *said = p11_kit_uri_get_attribute(card.uri, CKA_CLASS);
	CK_OBJECT_CLASS is;

	if (!said || said->ulValueLen != sizeof(is))
		return true;
	memcpy(&is, said->pValue, sizeof(is));
	return class == CKO_SECRET_KEY ? is == class : is != CKO_SECRET_KEY;
}

/* The parameters live in *p. */
union parameters {
	CK_RSA_PKCS_OAEP_PARAMS oaep;
	CK_GCM_PARAMS gcm;
};
static CK_MECHANISM mechanism_of(const struct wrapped *w, union parameters *p)
{
	bool is_sha256 = w->mechanism == RSA_OAEP_SHA256;

	if (w->mechanism == AES_GCM) {
		p->gcm = (CK_GCM_PARAMS){
			.iv_ptr = (uint8_t *)w->iv, .iv_len = IV_LEN, .iv_bits = IV_LEN * 8, .aad_ptr = (uint8_t *)AAD,
			.aad_len = sizeof(AAD) - 1, .tag_bits = TAG_BITS,
		};
		return (CK_MECHANISM){ CKM_AES_GCM, &p->gcm, sizeof(p->gcm) };
	}
	p->oaep = (CK_RSA_PKCS_OAEP_PARAMS){
		.hash_alg = is_sha256 ? CKM_SHA256 : CKM_SHA_1, .mgf = is_sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
		.source = CKZ_DATA_SPECIFIED,
	};
	return (CK_MECHANISM){ CKM_RSA_PKCS_OAEP, &p->oaep, sizeof(p->oaep) };
}

/* ---- sealing -------------------------------------------------------------------------------------------- */

static void take_id(CK_OBJECT_HANDLE key, struct wrapped *w)
{
	CK_ATTRIBUTE id = { CKA_ID, w->id, sizeof(w->id) };
	CK_RV rv = card.module->C_GetAttributeValue(card.session, key, &id, 1);

	if (rv != CKR_OK || !id.ulValueLen || id.ulValueLen > sizeof(w->id))
		protocol_fail(PROTOCOL_FAILED, "%s: the key has no id of 1 to %d bytes, by which it could be found again", card.name, ID_MAX);
	w->id_len = id.ulValueLen;
}

/* A public key needs no PIN. */
static CK_OBJECT_HANDLE choose_key(const struct settings *s, enum mechanism *mechanism)
{
	CK_OBJECT_HANDLE key = 0;
	unsigned n = may_be(CKO_PUBLIC_KEY) ? find_key(CKO_PUBLIC_KEY, CKK_RSA, NULL, &key) : 0;

	*mechanism = n ? RSA_OAEP_SHA256 : AES_GCM;
	if (!n && may_be(CKO_SECRET_KEY)) {
		log_in(s);
		n = find_key(CKO_SECRET_KEY, CKK_AES, NULL, &key);
	}
	if (!n)
		protocol_fail(PROTOCOL_FAILED, "%s: it has neither a public RSA key nor an AES key that %s names", card.name, s->uri);
	if (n > 1)
		protocol_fail(PROTOCOL_FAILED, "%s: %s names several keys: an object= or id= makes it one", card.name, s->uri);
	return key;
}

static CK_RV encrypt(CK_OBJECT_HANDLE key, const struct protocol_request *request, struct wrapped *w)
{
	union parameters p;
	CK_MECHANISM mechanism = mechanism_of(w, &p);
	CK_ULONG len = sizeof(w->data);
	CK_RV rv = card.module->C_EncryptInit(card.session, &mechanism, key);

	if (rv == CKR_OK)
		rv = card.module->C_Encrypt(card.session, (uint8_t *)request->secret, request->secret_len, w->data, &len);
	w->data_len = len;
	return rv;
}

static void seal(const struct settings *s, const struct protocol_request *request)
{
	struct json_object *token = json_object_new_object();
	char id[2 * ID_MAX + 1] = "";
	struct wrapped w;
	CK_OBJECT_HANDLE key;
	CK_RV rv;

	open_card(s);
	key = choose_key(s, &w.mechanism);
	take_id(key, &w);
	if (getrandom(w.iv, sizeof(w.iv), 0) != sizeof(w.iv))
		protocol_fail(PROTOCOL_FAILED, "the kernel gives no random bytes");
	rv = encrypt(key, request, &w);
	/* Many modules know OAEP with SHA-1 alone, which is sound: it needs no hash that resists collisions (RFC 8017, B.1). */
	if (rv != CKR_OK && w.mechanism == RSA_OAEP_SHA256) {
		w.mechanism = RSA_OAEP_SHA1;
		rv = encrypt(key, request, &w);
	}
	must(rv, "encrypting the secret");
	protocol_put_text(token, "helper", "pkcs11");
	protocol_put_text(token, "mechanism", mechanism_names[w.mechanism]);
	for (size_t i = 0; i < w.id_len; i++)
		sprintf(id + 2 * i, "%02x", w.id[i]);
	protocol_put_text(token, "id", id);
	protocol_put_bytes(token, "data", w.data, w.data_len);
	if (w.mechanism == AES_GCM)
		protocol_put_bytes(token, "iv", w.iv, sizeof(w.iv));
	protocol_reply_token(token);
}

/* ---- opening -------------------------------------------------------------------------------------------- */

_Noreturn static void damaged(void)
{
	protocol_fail(PROTOCOL_FAILED, "the token is damaged");
}

static size_t take_hex(const char *text, uint8_t *out, size_t size)
{
	size_t len = text ? strlen(text) / 2 : 0;

	if (!len || len > size || strspn(text, "0123456789abcdef") != 2 * len || text[2 * len])
		damaged();
	for (size_t i = 0; i < len; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1], '\0' };

		out[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return len;
}

static void take_wrapped(struct json_object *token, struct wrapped *w)
{
	const char *name = protocol_text(token, "mechanism");
	int i = 0;
	size_t len = 0;

	while (i < N_MECHANISMS && (!name || strcmp(name, mechanism_names[i]) != 0))
		i++;
	if (i == N_MECHANISMS)
		protocol_fail(PROTOCOL_FAILED, "the token is wrapped in a way that this program does not know");
	w->mechanism = (enum mechanism)i;
	w->id_len = take_hex(protocol_text(token, "id"), w->id, sizeof(w->id));
	if (!protocol_bytes(token, "data", w->data, sizeof(w->data), &w->data_len) || !w->data_len)
		damaged();
	if (w->mechanism == AES_GCM && (!protocol_bytes(token, "iv", w->iv, sizeof(w->iv), &len) || len != IV_LEN))
		damaged();
}

static void decrypt(CK_OBJECT_HANDLE key, struct wrapped *w)
{
	union parameters p;
	CK_MECHANISM mechanism = mechanism_of(w, &p);
	CK_ULONG len = sizeof(memory.secret);
	CK_RV rv = card.module->C_DecryptInit(card.session, &mechanism, key);

	must(rv, "using the key");
	rv = card.module->C_Decrypt(card.session, w->data, w->data_len, memory.secret, &len);
	if (rv == CKR_ENCRYPTED_DATA_INVALID || rv == CKR_ENCRYPTED_DATA_LEN_RANGE || rv == CKR_DATA_INVALID || rv == CKR_GENERAL_ERROR)
		protocol_fail(PROTOCOL_FAILED, "%s: the token is damaged, or was made by another key of that id", card.name);
	must(rv, "decrypting the secret");
	if (!len || len > PROTOCOL_SECRET_MAX)
		damaged();
	protocol_reply_secret(memory.secret, len);
}

static void open_token(const struct settings *s, const struct protocol_request *request)
{
	CK_OBJECT_HANDLE key;
	struct wrapped w;
	bool is_aes;

	take_wrapped(request->token, &w);
	is_aes = w.mechanism == AES_GCM;
	open_card(s);
	log_in(s);
	if (!find_key(is_aes ? CKO_SECRET_KEY : CKO_PRIVATE_KEY, is_aes ? CKK_AES : CKK_RSA, &w, &key))
		protocol_fail(PROTOCOL_NO_MATCH, "%s: it has no key that %s and the token name", card.name, s->uri);
	decrypt(key, &w);
}

/* ---- options -------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: vdisk-key-pkcs11 --uri pkcs11:... [--module FILE] [--pin-file FILE] [--timeout SECONDS]\n"
	"Seals and opens secrets for vdisk's --new-key-command and --key-command.\n";

static void parse(int argc, char **argv, struct settings *s)
{
	const char *timeout = NULL;
	const struct options_entry table[] = {
		{ "uri", &s->uri }, { "module", &s->module }, { "pin-file", &s->pin_file }, { "timeout", &timeout }, { 0 },
	};
	int behind = options_take(argc, argv, table, usage);

	if (behind < argc)
		protocol_fail(PROTOCOL_FAILED, "'%s' is no option", argv[behind]);
	if (!s->uri)
		protocol_fail(PROTOCOL_FAILED, "--uri is needed: it says which card and key");
	parse_uri(s->uri);
	s->timeout = options_timeout(timeout, DEFAULT_TIMEOUT);
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };

	protocol_guard(&memory, sizeof(memory));
	parse(argc, argv, &s);
	protocol_read(&memory.request, "pkcs11");
	if (memory.request.is_seal)
		seal(&s, &memory.request);
	else
		open_token(&s, &memory.request);
	explicit_bzero(&memory, sizeof(memory));
	return 0;
}
