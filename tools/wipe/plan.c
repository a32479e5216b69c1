/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads profiles and ways to verify. A profile is what vdisk makes of a standard's name, and no claim to conform to it. */
#include "wipe/plan.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

#define SAMPLES_MAX 1000000

/*
 * gb46864: three overwrites with a random one among them, as GB 46864-2025 is said to ask of magnetic media. dod3: DoD 5220.22-M as
 * tools have it. bmb21: BMB21-2019 as nwipe has it.
 */
static const struct {
	const char *name, *passes;
} profiles[] = {
	{ "clear", "random" }, { "zero", "00" }, { "gb46864", "00,ff,random" }, { "dod3", "00,ff,random" },
	{ "bmb21", "ff,00,random,random,random,ff" },
};
#define N_PROFILES (sizeof(profiles) / sizeof(profiles[0]))

static int add_pass(struct wipe_plan *plan, const char *word, struct vd_error *e)
{
	struct wipe_pass p = { .is_random = !strcmp(word, "random") };

	if (plan->n_passes == WIPE_PASSES_MAX)
		return fail(e, VD_EARG, "--profile: more than %d passes", WIPE_PASSES_MAX);
	if (!p.is_random) {
		if (strlen(word) != 2 || !isxdigit((unsigned char)word[0]) || !isxdigit((unsigned char)word[1]))
			return fail(e, VD_EARG, "--profile: '%s' is neither random nor a byte such as 00 or ff", word);
		p.byte = (uint8_t)strtoul(word, NULL, 16);
	}
	plan->passes[plan->n_passes++] = p;
	return 0;
}

static int add_passes(struct wipe_plan *plan, const char *list, struct vd_error *e)
{
	char copy[96], *save = NULL;
	int r = 0;

	if (strlen(list) >= sizeof(copy) || !*list)
		return fail(e, VD_EARG, "--profile: custom= takes a list such as 00,ff,random");
	snprintf(copy, sizeof(copy), "%s", list);
	for (char *word = strtok_r(copy, ",", &save); word && r == 0; word = strtok_r(NULL, ",", &save))
		r = add_pass(plan, word, e);
	return r;
}

static int parse_profile(const char *profile, struct wipe_plan *plan, struct vd_error *e)
{
	snprintf(plan->profile, sizeof(plan->profile), "%s", profile);
	if (!strncmp(profile, "custom=", 7))
		return add_passes(plan, profile + 7, e);
	for (size_t i = 0; i < N_PROFILES; i++)
		if (!strcmp(profile, profiles[i].name))
			return add_passes(plan, profiles[i].passes, e);
	return fail(e, VD_EARG, "--profile: '%s' is not one of: clear, zero, gb46864, dod3, bmb21, custom=LIST", profile);
}

/* n = ln(1 - C) / ln(1 - f): so many samples at random miss a rest of the fraction f with the probability 1 - C. */
static int parse_sample(const char *text, struct wipe_plan *plan, struct vd_error *e)
{
	double c, f, n;

	snprintf(plan->confidence, sizeof(plan->confidence), "99");
	snprintf(plan->fraction, sizeof(plan->fraction), "0.1");
	if (*text == '=' && sscanf(text + 1, "%15[0-9.],%15[0-9.]", plan->confidence, plan->fraction) != 2)
		return fail(e, VD_EARG, "--verify: sample= takes CONFIDENCE,FRACTION in per cent, such as 99,0.1");
	c = strtod(plan->confidence, NULL);
	f = strtod(plan->fraction, NULL);
	if (!(c > 0 && c < 100 && f > 0 && f < 100))
		return fail(e, VD_EARG, "--verify: confidence and fraction lie between 0 and 100 per cent");
	n = ceil(log(1 - c / 100) / log(1 - f / 100));
	if (!(n >= 1 && n <= SAMPLES_MAX))
		return fail(e, VD_EARG, "--verify: that takes more than %d samples: verify in full", SAMPLES_MAX);
	plan->samples = (uint64_t)n;
	plan->verify = WIPE_VERIFY_SAMPLE;
	return 0;
}

int wipe_plan_parse(const char *profile, const char *verify, struct wipe_plan *plan, struct vd_error *e)
{
	int r = parse_profile(profile ? profile : "clear", plan, e);

	if (r < 0 || !verify || !strcmp(verify, "full"))
		return r;
	if (!strcmp(verify, "none")) {
		plan->verify = WIPE_VERIFY_NONE;
		return 0;
	}
	if (!strcmp(verify, "sample") || !strncmp(verify, "sample=", 7))
		return parse_sample(verify + 6, plan, e);
	return fail(e, VD_EARG, "--verify: '%s' is not one of: full, sample, sample=CONFIDENCE,FRACTION, none", verify);
}

void wipe_pass_name(const struct wipe_pass *p, char name[16])
{
	if (p->is_random)
		snprintf(name, 16, "aes-256-ctr");
	else
		snprintf(name, 16, "%02x", p->byte);
}
