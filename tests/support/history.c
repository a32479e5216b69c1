/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the list of writes and flushes and judges contents by it. */
#include "tests/support/history.h"

#include <stdlib.h>
#include <string.h>

static void *grown(void *p, size_t n, size_t size)
{
	p = reallocarray(p, n, size);
	if (!p)
		abort();
	return p;
}

void history_init(struct history *h, uint64_t start, uint64_t end, const uint8_t *content)
{
	*h = (struct history){ .start = start, .end = end, .durable = grown(NULL, end - start + 1, 1) };
	memcpy(h->durable, content, end - start);
}

void history_free(struct history *h)
{
	for (size_t i = 0; i < h->n_ops; i++)
		free(h->ops[i].bytes);
	free(h->ops);
	free(h->acks);
	free(h->durable);
}

void history_add(struct history *h, uint64_t off, uint64_t len, const uint8_t *bytes, uint64_t begun)
{
	h->ops = grown(h->ops, h->n_ops + 1, sizeof(*h->ops));
	h->ops[h->n_ops++] = (struct history_op){ off, len, memcpy(grown(NULL, len + 1, 1), bytes, len), begun };
}

void history_ack(struct history *h, size_t n_ops, uint64_t tick)
{
	h->acks = grown(h->acks, h->n_acks + 1, sizeof(*h->acks));
	h->acks[h->n_acks++] = (struct history_ack){ n_ops, tick };
}

static void make_durable(struct history *h, uint64_t tick)
{
	size_t n = 0;

	for (size_t i = 0; i < h->n_acks; i++)
		if (h->acks[i].tick <= tick && h->acks[i].n_ops > n)
			n = h->acks[i].n_ops;
	for (; h->n_durable < n; h->n_durable++) {
		const struct history_op *op = &h->ops[h->n_durable];

		memcpy(h->durable + (op->off - h->start), op->bytes, op->len);
	}
}

static bool was_begun_with(const struct history *h, uint64_t tick, uint64_t off, uint8_t value)
{
	for (size_t i = h->n_durable; i < h->n_ops && h->ops[i].begun < tick; i++) {
		const struct history_op *op = &h->ops[i];

		if (off - op->off < op->len && op->bytes[off - op->off] == value)
			return true;
	}
	return false;
}

bool history_allows(struct history *h, uint64_t tick, const uint8_t *got, uint64_t *bad)
{
	uint64_t len = h->end - h->start;

	make_durable(h, tick);
	if (!memcmp(got, h->durable, len))
		return true;
	for (uint64_t i = 0; i < len; i++) {
		if (got[i] == h->durable[i] || was_begun_with(h, tick, h->start + i, got[i]))
			continue;
		*bad = h->start + i;
		return false;
	}
	return true;
}
