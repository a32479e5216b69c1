/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns names of Windows into names of this machine and back, as text alone. */
#include "formats/parentname.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

static int add(struct vd_parent_names *names, const char *name, struct vd_error *e)
{
	int r;

	for (size_t i = 0; i < names->n; i++)
		if (!strcmp(names->at[i], name))
			return 0;
	if (!name[0] || names->n == VD_PARENT_NAMES_MAX)
		return 0;
	r = vd_strdup(name, &names->at[names->n], e);
	if (r == 0)
		names->n++;
	return r;
}

bool vd_parent_name_is_absolute(const char *name)
{
	return name[0] == '/' || name[0] == '\\' || (name[0] && name[1] == ':');
}

int vd_parent_names_add(struct vd_parent_names *names, const char *name, struct vd_error *e)
{
	vd_auto_free char *text = NULL;
	const char *rest, *slash;
	int r = vd_strdup(name, &text, e);

	if (r < 0)
		return r;
	for (char *p = text; name[0] != '/' && *p; p++)
		if (*p == '\\')
			*p = '/';
	rest = text;
	while (rest[0] == '.' && rest[1] == '/')
		rest += 2;
	slash = strrchr(rest, '/');
	/* Of an absolute name of Windows the drive and the folders say nothing here. */
	if (name[0] == '/' || !vd_parent_name_is_absolute(name))
		r = add(names, rest, e);
	else if (!slash && name[1] == ':')
		slash = text + 1;
	return r == 0 && slash ? add(names, slash + 1, e) : r;
}

void vd_parent_names_free(struct vd_parent_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->at[i]);
	*names = (struct vd_parent_names){ 0 };
}

int vd_parent_name_for_windows(const char *name, char *out, size_t cap, struct vd_error *e)
{
	int n;

	if (strchr(name, '\\'))
		return vd_fail(e, VD_EARG, "the backing file '%s' holds a backslash, which the format takes for a folder's end", name);
	n = snprintf(out, cap, ".\\%s", name);
	if (n < 0 || (size_t)n >= cap)
		return vd_fail(e, VD_EARG, "the name of the backing file has %zu bytes, which is too many", strlen(name));
	for (char *p = out; *p; p++)
		if (*p == '/')
			*p = '\\';
	return 0;
}
