/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connects, proves who is who, and moves one message each way. How long all of it may take is the caller's affair: it
 * has an alarm set.
 */
#include "keyhelpers/kmip_tls.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keyhelpers/protocol.h"

#define PRIORITY "NORMAL:-VERS-TLS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* The first of the host's addresses that answers. */
static int connect_to(const struct kmip_server *server)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all;
	int err = getaddrinfo(server->host, server->port, &hints, &all), fd = -1;

	if (err)
		protocol_fail(PROTOCOL_UNAVAILABLE, "%s: %s", server->host, gai_strerror(err));
	for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			err = errno;
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(all);
	if (fd < 0)
		protocol_fail(PROTOCOL_UNAVAILABLE, "%s:%s: %s", server->host, server->port, strerror(err ? err : errno));
	return fd;
}

static void load_files(gnutls_certificate_credentials_t to, const struct kmip_server *server)
{
	int r = gnutls_certificate_set_x509_trust_file(to, server->ca, GNUTLS_X509_FMT_PEM);

	if (r == 0)
		protocol_fail(PROTOCOL_FAILED, "%s: no certificate is in it", server->ca);
	if (r < 0)
		protocol_fail(PROTOCOL_FAILED, "%s: %s", server->ca, gnutls_strerror(r));
	r = gnutls_certificate_set_x509_key_file(to, server->cert, server->key, GNUTLS_X509_FMT_PEM);
	if (r < 0)
		protocol_fail(PROTOCOL_FAILED, "%s, %s: %s", server->cert, server->key, gnutls_strerror(r));
}

/* What the server refuses us by; it may say so at once or, in TLS 1.3, where the first reply should be. */
static bool is_refusal(gnutls_alert_description_t alert)
{
	switch (alert) {
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

_Noreturn static void fail_tls(gnutls_session_t session, int err)
{
	gnutls_alert_description_t alert = gnutls_alert_get(session);
	gnutls_datum_t why;

	if (err == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
	    gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(session), GNUTLS_CRT_X509,
							 &why, 0) == 0)
		protocol_fail(PROTOCOL_FAILED, "the server's certificate: %s", why.data);
	if (err == GNUTLS_E_FATAL_ALERT_RECEIVED && is_refusal(alert))
		protocol_fail(PROTOCOL_DENIED, "the server refuses our certificate: %s", gnutls_alert_get_name(alert));
	if (err == GNUTLS_E_FATAL_ALERT_RECEIVED)
		protocol_fail(PROTOCOL_FAILED, "the server ends the connection: %s", gnutls_alert_get_name(alert));
	if (err == GNUTLS_E_PULL_ERROR || err == GNUTLS_E_PUSH_ERROR)
		protocol_fail(PROTOCOL_UNAVAILABLE, "the connection to the server breaks");
	if (err == 0 || err == GNUTLS_E_PREMATURE_TERMINATION)
		protocol_fail(PROTOCOL_FAILED, "the server ends the connection in the middle");
	protocol_fail(PROTOCOL_FAILED, "TLS: %s", gnutls_strerror(err));
}

/* Names are told to the server, so that it can choose its certificate; addresses must not be (RFC 6066, 3). */
static bool is_name(const char *host)
{
	return host[strspn(host, "0123456789.")] && !strchr(host, ':');
}

void kmip_connect(struct kmip_link *link, const struct kmip_server *server)
{
	int r = gnutls_certificate_allocate_credentials(&link->credentials);

	if (r == 0)
		r = gnutls_init(&link->session, GNUTLS_CLIENT);
	if (r < 0)
		protocol_fail(PROTOCOL_FAILED, "TLS: %s", gnutls_strerror(r));
	load_files(link->credentials, server);
	r = gnutls_priority_set_direct(link->session, PRIORITY, NULL);
	if (r == 0)
		r = gnutls_credentials_set(link->session, GNUTLS_CRD_CERTIFICATE, link->credentials);
	if (r == 0 && is_name(server->host))
		r = gnutls_server_name_set(link->session, GNUTLS_NAME_DNS, server->host, strlen(server->host));
	if (r < 0)
		fail_tls(link->session, r);
	gnutls_session_set_verify_cert(link->session, server->host, 0);
	link->fd = connect_to(server);
	gnutls_transport_set_int(link->session, link->fd);
	do
		r = gnutls_handshake(link->session);
	while (r < 0 && !gnutls_error_is_fatal(r));
	if (r < 0)
		fail_tls(link->session, r);
}

static void read_all(struct kmip_link *link, uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = gnutls_record_recv(link->session, p, len);

		if (n == 0 || (n < 0 && gnutls_error_is_fatal((int)n)))
			fail_tls(link->session, (int)n);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
}

size_t kmip_exchange(struct kmip_link *link, const uint8_t *request, size_t len, uint8_t reply[KMIP_REPLY_MAX])
{
	size_t n;

	while (len) {
		ssize_t sent = gnutls_record_send(link->session, request, len);

		if (sent < 0 && gnutls_error_is_fatal((int)sent))
			fail_tls(link->session, (int)sent);
		if (sent > 0) {
			request += sent;
			len -= (size_t)sent;
		}
	}
	read_all(link, reply, TTLV_HEADER);
	n = kmip_reply_len(reply);
	if (!n)
		protocol_fail(PROTOCOL_FAILED, "the server's reply: it is no response message of KMIP, or over %d bytes",
			      KMIP_REPLY_MAX);
	read_all(link, reply + TTLV_HEADER, n - TTLV_HEADER);
	return n;
}

void kmip_disconnect(struct kmip_link *link)
{
	gnutls_bye(link->session, GNUTLS_SHUT_WR);
	close(link->fd);
	gnutls_deinit(link->session);
	gnutls_certificate_free_credentials(link->credentials);
}
