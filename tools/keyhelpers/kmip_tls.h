/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A connection to a KMIP server: TLS 1.2 or 1.3 with certificates on both sides. What is said over it, it does not know. */
#ifndef KEYHELPERS_KMIP_TLS_H
#define KEYHELPERS_KMIP_TLS_H

#include "keyhelpers/kmip_message.h"

#include <gnutls/gnutls.h>

struct kmip_server {
	const char *host, *port;
	const char *ca, *cert, *key;    /* PEM files: who signed the server's certificate; ours, and its private key */
};

struct kmip_link {
	int fd;
	gnutls_certificate_credentials_t credentials;
	gnutls_session_t session;
};

/* Each ends the program with an error reply when it fails. */
void kmip_connect(struct kmip_link *link, const struct kmip_server *server);
/* Sends a request; returns the length of the reply. */
size_t kmip_exchange(struct kmip_link *link, const uint8_t *request, size_t len, uint8_t reply[KMIP_REPLY_MAX]);
void kmip_disconnect(struct kmip_link *link);

#endif
