/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rules that table entries and the uses of a cluster keep, broken one by one. Telling and mending are others' work. */
#include "formats/qcow2/qcow2_check.h"

struct judge {
	const struct vd_qcow2 *s;
	struct vd_qcow2_fault *faults;
	size_t n;
};

static void add(struct judge *j, enum vd_finding_kind kind, const char *text, bool has_right)
{
	if (j->n < QCOW2_FAULTS_MAX)
		j->faults[j->n++] = (struct vd_qcow2_fault){ kind, text, has_right };
}

static void judge_place(struct judge *j, uint64_t off)
{
	if (off % j->s->cluster_size)
		add(j, VD_FOUND_UNALIGNED, "does not lead to the beginning of a cluster", false);
	if (off >= atomic_load(&j->s->host_end))
		add(j, VD_FOUND_OUTSIDE, "leads outside the file", false);
}

static void judge_packed(struct judge *j, const struct vd_qcow2_ref *ref, struct vd_qcow2_word word,
			 struct vd_qcow2_word *right)
{
	if (j->s->payload_file)
		add(j, VD_FOUND_CONTRADICTION, "is of a compressed cluster, which an image with a data file does not have", false);
	if (word.first & QCOW2_COPIED)
		add(j, VD_FOUND_COPIED, "is of a compressed cluster and has the copied flag", true);
	if (word.bitmap)
		add(j, VD_FOUND_RESERVED, "is of a compressed cluster and has subcluster bits", true);
	right->first &= ~QCOW2_COPIED;
	right->bitmap = 0;
	if (ref->host_off >= atomic_load(&j->s->host_end))
		add(j, VD_FOUND_OUTSIDE, "leads outside the file", false);
}

static void judge_subclusters(struct judge *j, const struct vd_qcow2_cluster *c, struct vd_qcow2_word *right)
{
	if (c->allocated && !c->has_host)
		add(j, VD_FOUND_CONTRADICTION, "has subclusters with data, but leads to no cluster", false);
	/* Data that is there is not given up for zeros that may be meant. */
	if (c->allocated & c->zero) {
		add(j, VD_FOUND_CONTRADICTION, "calls a subcluster data and zeros at once", true);
		right->bitmap &= ~((uint64_t)c->allocated << 32);
	}
}

static void judge_standard(struct judge *j, const struct vd_qcow2_ref *ref, struct vd_qcow2_word word,
			   struct vd_qcow2_word *right)
{
	const struct vd_qcow2 *s = j->s;
	const struct vd_qcow2_cluster *c = ref->cluster;
	bool is_extended = s->n_sub > 1;
	uint64_t reserved = QCOW2_L2_RESERVED | (is_extended || s->h.version == 2 ? QCOW2_ZERO : 0);

	if (word.first & reserved)
		add(j, VD_FOUND_RESERVED, "has reserved bits set", true);
	right->first &= ~reserved;
	if (!c->has_host && c->is_copied) {
		add(j, VD_FOUND_CONTRADICTION, "has the copied flag, but leads to no cluster", true);
		right->first &= ~QCOW2_COPIED;
	}
	if (is_extended)
		judge_subclusters(j, c, right);
	if (!c->has_host)
		return;
	if (!s->payload_file) {
		judge_place(j, c->host_off);
	} else if (c->host_off != ref->guest_off) {
		/* There is only one place in a data file where they can be. */
		add(j, VD_FOUND_CONTRADICTION, "leads to another place of the data file than the disk's own", true);
		right->first = (right->first & ~QCOW2_OFFSET_MASK) | ref->guest_off;
	}
}

size_t vd_qcow2_entry_faults(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, struct vd_qcow2_word word,
			     struct vd_qcow2_fault *faults, struct vd_qcow2_word *right)
{
	struct judge j = { .s = s, .faults = faults };

	*right = word;
	if (ref->kind == QCOW2_REF_L2) {
		if (word.first & QCOW2_L1_RESERVED)
			add(&j, VD_FOUND_RESERVED, "has reserved bits set", true);
		right->first &= ~QCOW2_L1_RESERVED;
		if (ref->host_off) {
			judge_place(&j, ref->host_off);
		} else if (word.first & QCOW2_COPIED) {
			add(&j, VD_FOUND_CONTRADICTION, "has the copied flag, but leads to no table", true);
			right->first &= ~QCOW2_COPIED;
		}
	} else if (ref->cluster->is_packed) {
		judge_packed(&j, ref, word, right);
	} else {
		judge_standard(&j, ref, word, right);
	}
	return j.n;
}

int vd_qcow2_word_read(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, struct vd_qcow2_word *word,
		       struct vd_error *e)
{
	uint8_t raw[QCOW2_ENTRY_MAX];
	size_t len = ref->kind == QCOW2_REF_CLUSTER ? s->entry_size : 8;
	int r = vd_set_pread(s->set, 0, raw, len, ref->entry_off, e);

	word->first = vd_get_be64(raw);
	word->bitmap = len > 8 ? vd_get_be64(raw + 8) : 0;
	return r;
}

/* ---- uses of a cluster ---------------------------------------------------------------------------------- */

#define BIT(kind) (1u << QCOW2_REF_##kind)
/* Of these the decoder of entries knows, and follows no L1 entry there. */
#define KNOWN_AREAS (BIT(HEADER) | BIT(KEY_AREA) | BIT(REFT) | BIT(L1) | BIT(SNAPSHOTS))
#define ANY_L2 (BIT(L2) | QCOW2_TALLY_L2_SNAPSHOT)

/* L2 tables may be shared by snapshots, and count as one. */
static unsigned n_owners(uint16_t uses)
{
	if (uses & QCOW2_TALLY_L2_SNAPSHOT)
		uses |= BIT(L2);
	return __builtin_popcount(uses & QCOW2_TALLY_USES & ~QCOW2_TALLY_L2_SNAPSHOT);
}

bool vd_qcow2_table_is_alone(const struct vd_qcow2_tally *t, uint64_t entry_off)
{
	uint16_t uses = t->uses[entry_off / t->s->cluster_size - t->first];

	return n_owners(uses) == 1 && !(uses & QCOW2_TALLY_TWICE);
}

bool vd_qcow2_use_clashes(uint16_t uses)
{
	return n_owners(uses) > 1 || uses & QCOW2_TALLY_TWICE;
}

bool vd_qcow2_clash_blocks(uint16_t uses)
{
	return uses & ANY_L2 && uses & (BIT(REFT) | BIT(L1));
}

bool vd_qcow2_clash_is_mendable(uint16_t uses)
{
	uint16_t moved = BIT(REFT) | BIT(BLOCK) | BIT(L1);

	if (uses & ANY_L2 && uses & KNOWN_AREAS)
		return false;
	if (!(uses & QCOW2_TALLY_L2_SNAPSHOT))
		moved |= BIT(L2);
	uses &= ~moved;
	return n_owners(uses) == 0 || (n_owners(uses) == 1 && !(uses & QCOW2_TALLY_TWICE && uses & ~BIT(CLUSTER) & QCOW2_TALLY_USES));
}
