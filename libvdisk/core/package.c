/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes an OVA (DMTF DSP0243): descriptor, manifest, disk, in this order. The disk comes first in time, so the two before it
 * have a place of a known length: the manifest's lines are all as long, and the descriptor ends in blanks.
 *
 * The machine that the descriptor describes is the least that importers take: one processor, 1 GiB, a SCSI controller with the
 * disk. Whoever imports it sets what the machine has to be.
 */
#include "libvdisk/core/package.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/crypto/hash.h"
#include "libvdisk/io/slice.h"
#include "libvdisk/io/tar.h"

#define NAME_MAX_LEN 80                 /* of the machine: a member's name has at most 99 bytes */
#define OVF_LEN 4096                    /* the text below with names of that length and large numbers has less */
#define SUM_TEXT 64                     /* hex digits of SHA-256 */
#define PIECE (1u << 20)

struct vd_package {
	struct vd_io *disk;             /* the part of the file; borrowed */
	struct vd_io *file;             /* the whole; borrowed of the part */
	char name[NAME_MAX_LEN + 1];    /* of the machine */
	char ovf[NAME_MAX_LEN + 16], mf[NAME_MAX_LEN + 16], vmdk[NAME_MAX_LEN + 16];    /* names of the members */
	char mf_text[2 * (NAME_MAX_LEN + 32 + SUM_TEXT)];
	size_t mf_len;
	uint64_t disk_at;
};

/* The output's name without folder and suffix, as far as XML, tar and the manifest take it as it is. */
static void take_name(struct vd_package *p, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dot;

	snprintf(p->name, sizeof(p->name), "%.*s", NAME_MAX_LEN, slash ? slash + 1 : path);
	dot = strrchr(p->name, '.');
	if (dot && dot != p->name)
		*dot = '\0';
	for (char *c = p->name; *c; c++)
		if (strchr("<>&\"'()=%", *c) || (unsigned char)*c < 0x20)
			*c = '_';
	snprintf(p->ovf, sizeof(p->ovf), "%s.ovf", p->name);
	snprintf(p->mf, sizeof(p->mf), "%s.mf", p->name);
	snprintf(p->vmdk, sizeof(p->vmdk), "%s-disk1.vmdk", p->name);
}

/* With sums of zeros as long as they will be. */
static void write_manifest(struct vd_package *p, const char *ovf_sum, const char *vmdk_sum)
{
	p->mf_len = (size_t)snprintf(p->mf_text, sizeof(p->mf_text), "SHA256(%s)= %0*d\nSHA256(%s)= %0*d\n", p->ovf, SUM_TEXT, 0,
				     p->vmdk, SUM_TEXT, 0);
	if (ovf_sum)
		snprintf(p->mf_text, sizeof(p->mf_text), "SHA256(%s)= %s\nSHA256(%s)= %s\n", p->ovf, ovf_sum, p->vmdk, vmdk_sum);
}

int vd_package_begin(const char *path, struct vd_io **io, struct vd_package **out, struct vd_error *e)
{
	struct vd_package *p;
	int r = vd_alloc(1, sizeof(*p), &p, e);

	if (r < 0)
		return r;
	take_name(p, path);
	write_manifest(p, NULL, NULL);
	p->file = *io;
	p->disk_at = 3 * VD_TAR_BLOCK + OVF_LEN + vd_round_up(p->mf_len, VD_TAR_BLOCK);
	r = vd_slice_new_output(*io, p->disk_at, p->vmdk, io, e);
	if (r < 0) {
		free(p);
		return r;
	}
	p->disk = *io;
	*out = p;
	return 0;
}

void vd_package_free(struct vd_package *p)
{
	free(p);
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

static const char ovf_format[] =
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	"<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
	"  xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\"\n"
	"  xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\">\n"
	"  <References>\n"
	"    <File ovf:id=\"file1\" ovf:href=\"%s\" ovf:size=\"%" PRIu64 "\"/>\n"
	"  </References>\n"
	"  <DiskSection>\n"
	"    <Info>Disks</Info>\n"
	"    <Disk ovf:diskId=\"disk1\" ovf:fileRef=\"file1\" ovf:capacity=\"%" PRIu64 "\" ovf:capacityAllocationUnits=\"byte\"\n"
	"      ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>\n"
	"  </DiskSection>\n"
	"  <VirtualSystem ovf:id=\"%s\">\n"
	"    <Info>A virtual machine</Info>\n"
	"    <Name>%s</Name>\n"
	"    <OperatingSystemSection ovf:id=\"102\"><Info>Other, 64 bits</Info></OperatingSystemSection>\n"
	"    <VirtualHardwareSection>\n"
	"      <Info>Hardware</Info>\n"
	"      <System>\n"
	"        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>\n"
	"        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>\n"
	"      </System>\n"
	"      <Item><rasd:ElementName>1 processor</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>"
	"<rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>\n"
	"      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>1024 MiB of memory</rasd:ElementName>"
	"<rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>"
	"<rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>\n"
	"      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI controller</rasd:ElementName>"
	"<rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>"
	"<rasd:ResourceType>6</rasd:ResourceType></Item>\n"
	"      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>disk</rasd:ElementName>"
	"<rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID>"
	"<rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>\n"
	"    </VirtualHardwareSection>\n"
	"  </VirtualSystem>\n"
	"</Envelope>\n";

/* Blanks up to a fixed length, which XML allows behind the last element. */
static int write_ovf(const struct vd_package *p, uint64_t disk_len, uint64_t size, char text[OVF_LEN], struct vd_error *e)
{
	int len = snprintf(text, OVF_LEN, ovf_format, p->vmdk, disk_len, size, p->name, p->name);

	if (len < 0 || len >= OVF_LEN)
		return vd_fail(e, VD_EFAILED, "%s: the descriptor of the package became too long", p->file->name);
	memset(text + len, ' ', (size_t)(OVF_LEN - len - 1));
	text[OVF_LEN - 1] = '\n';
	return 0;
}

static void show_sum(struct vd_hash *h, char out[SUM_TEXT + 1])
{
	uint8_t sum[VD_SHA256_LEN];
	size_t n = vd_hash_end(h, sum);

	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

static int sum_text(const char *text, size_t len, char out[SUM_TEXT + 1], struct vd_error *e)
{
	struct vd_hash *h = NULL;
	int r = vd_hash_new(VD_SHA256, &h, e);

	if (r < 0)
		return r;
	vd_hash_add(h, text, len);
	show_sum(h, out);
	vd_hash_free(h);
	return 0;
}

static int sum_disk(const struct vd_package *p, uint64_t len, char out[SUM_TEXT + 1], struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	struct vd_hash *h = NULL;
	int r = vd_alloc_buffer(PIECE, &buf, e);

	if (r == 0)
		r = vd_hash_new(VD_SHA256, &h, e);
	if (r < 0)
		return r;
	for (uint64_t at = 0, n; at < len && r == 0; at += n) {
		n = vd_min_u64(PIECE, len - at);
		r = vd_io_pread(p->disk, buf, n, at, e);
		vd_hash_add(h, buf, n);
	}
	show_sum(h, out);
	vd_hash_free(h);
	return r;
}

/* A header and the member behind it; `bytes` NULL: that is there already. */
static int put_member(const struct vd_package *p, uint64_t *at, const char *name, const void *bytes, uint64_t len,
		      struct vd_error *e)
{
	uint8_t header[VD_TAR_BLOCK];
	int r;

	vd_tar_header(header, name, len, (uint64_t)time(NULL));
	r = vd_io_pwrite(p->file, header, sizeof(header), *at, e);
	if (r == 0 && bytes)
		r = vd_io_pwrite(p->file, bytes, len, *at + sizeof(header), e);
	*at += sizeof(header) + vd_round_up(len, VD_TAR_BLOCK);
	return r;
}

int vd_package_end(struct vd_package *p, uint64_t size, struct vd_error *e)
{
	char ovf[OVF_LEN], ovf_sum[SUM_TEXT + 1], disk_sum[SUM_TEXT + 1];
	uint64_t len = 0, at = 0;
	int r = vd_io_size(p->disk, &len, e);

	if (r == 0)
		r = write_ovf(p, len, size, ovf, e);
	if (r == 0)
		r = sum_text(ovf, sizeof(ovf), ovf_sum, e);
	if (r == 0)
		r = sum_disk(p, len, disk_sum, e);
	if (r < 0)
		return r;
	write_manifest(p, ovf_sum, disk_sum);
	r = put_member(p, &at, p->ovf, ovf, sizeof(ovf), e);
	if (r == 0)
		r = put_member(p, &at, p->mf, p->mf_text, p->mf_len, e);
	if (r == 0)
		r = put_member(p, &at, p->vmdk, NULL, len, e);
	/* Two blocks of zeros end the archive. */
	if (r == 0)
		r = vd_io_truncate(p->file, at + 2 * VD_TAR_BLOCK, e);
	return r < 0 ? r : vd_io_flush(p->file, e);
}
