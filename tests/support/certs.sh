# SPDX-License-Identifier: LGPL-2.1-or-later
# Certificates for the tests that speak TLS; sourced after lib.sh. Each is NAME.crt with its key in NAME.key.

# make_ca NAME
make_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
		-keyout "$1.key" -out "$1.crt" 2> certs.log
}

# make_cert NAME CA serverAuth|clientAuth [SUBJECT-ALT-NAME]
make_cert() {
	{
		echo "extendedKeyUsage=$3"
		[ -z "${4:-}" ] || echo "subjectAltName=$4"
	} > "$1.ext"
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2> certs.log &&
		openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 2 -extfile "$1.ext" \
			-out "$1.crt" 2>> certs.log
}
