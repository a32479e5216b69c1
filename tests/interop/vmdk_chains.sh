#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Chains of VMDKs that are rebased, flattened and committed: qemu-img follows them, by the CIDs, and reads the same.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io cmp

cid() { # FILE: the last one it has
	tr -d '\0' < "$1" | sed -n 's/^CID=//p' | tail -n 1
}
parent_cid() {
	tr -d '\0' < "$1" | sed -n 's/^parentCID=//p' | tail -n 1
}
knows_parent() { # CHILD PARENT
	[ $((0x$(parent_cid "$1"))) = $((0x$(cid "$2"))) ]
}
reads() { # FILE RAW
	qemu-img convert -f vmdk -O raw "$1" out.raw && cmp out.raw "$2" && "$VDISK" compare -f vmdk -F raw "$1" "$2"
}
told() { # CHILD of a parent that was written
	! "$VDISK" convert -O raw "$1" told.raw 2> log && grep -q CID log
}
fill() { # FILE COMMAND...
	f=$1
	shift
	for c; do
		qemu-io -f vmdk -c "$c" "$f" > log || return 1
	done
}
make_chain() { # OPTIONS of the children; SUBFORMAT of the base
	rm -f ./*.vmdk
	"$VDISK" create -f vmdk -o "subformat=$2" base.vmdk 8M && fill base.vmdk 'write -P 1 0 3M' 'write -P 2 5M 1M' || return 1
	"$VDISK" create -f vmdk $1 -b base.vmdk -F vmdk mid.vmdk && fill mid.vmdk 'write -P 3 1M 100k' 'write -P 4 4M 64k' || return 1
	"$VDISK" create -f vmdk $1 -b mid.vmdk -F vmdk top.vmdk && fill top.vmdk 'write -P 5 1050000 5000' 'write -P 6 7M 64k' || return 1
	"$VDISK" create -f vmdk -b base.vmdk -F vmdk brother.vmdk || return 1
	qemu-img convert -f vmdk -O raw top.vmdk top.raw && qemu-img convert -f vmdk -O raw mid.vmdk mid.raw
}

for kind in monolithicSparse twoGbMaxExtentSparse monolithicFlat; do
	for o in '' '-o subformat=twoGbMaxExtentSparse' '-o zeroed_grain=on'; do
		what="over $kind ${o#-o }"
		check "a chain is made $what" make_chain "$o" "$kind"
		check "it is rebased $what" "$VDISK" rebase -b base.vmdk -F vmdk top.vmdk
		check "and knows its new parent $what" knows_parent top.vmdk base.vmdk
		check "and reads the same to qemu-img $what" reads top.vmdk top.raw
		check "and to qemu-img check $what" qemu-img check -q top.vmdk
		check "mid is what it was $what" reads mid.vmdk mid.raw

		make_chain "$o" "$kind" > log 2>&1
		check "it is flattened $what" "$VDISK" flatten top.vmdk
		check "and stands alone $what" [ "$(parent_cid top.vmdk)" = ffffffff ]
		check "and names no parent $what" [ -z "$("$VDISK" info top.vmdk | grep -i backing)" ]
		mkdir alone && cp top*.vmdk alone
		check "and reads the same $what" reads alone/top.vmdk top.raw
		rm -r alone

		make_chain "$o" "$kind" > log 2>&1
		old=$(cid mid.vmdk)
		check "it is committed $what" "$VDISK" commit top.vmdk
		check "the parent has another CID $what" [ "$(cid mid.vmdk)" != "$old" ]
		check "which the child has $what" knows_parent top.vmdk mid.vmdk
		check "the child reads the same $what" reads top.vmdk top.raw
		check "so does the parent $what" reads mid.vmdk top.raw
		check "the child is empty $what" [ -z "$("$VDISK" map --output=json top.vmdk 2> /dev/null | grep '"depth": *0.*"data": *true')" ]
		check "nothing is damaged $what" "$VDISK" check mid.vmdk
		check "the child takes writes $what" fill top.vmdk 'write -P 9 2M 64k' 'read -P 9 2M 64k' 'read -P 1 2200000 1000'

		make_chain "$o" "$kind" > log 2>&1
		check_fails 63 "two layers are committed one by one $what" "$VDISK" commit -b base.vmdk top.vmdk
		check "from the top $what" "$VDISK" commit top.vmdk
		check "to the base $what" "$VDISK" commit mid.vmdk
		check "which has the disk then $what" reads base.vmdk top.raw
		check "another child of the base is told $what" told brother.vmdk
		make_chain "$o" "$kind" > log 2>&1
		check "one layer is committed and kept $what" "$VDISK" commit -d top.vmdk
		check "the child knows its parent $what" knows_parent top.vmdk mid.vmdk
		check "and reads the same then $what" reads top.vmdk top.raw
	done
done

make_chain '' monolithicSparse > log 2>&1
check "a child grows to the middle of a grain" timeout 20 "$VDISK" resize top.vmdk +512
truncate -s +512 top.raw
check "and reads zeros there" reads top.vmdk top.raw
mkdir sub && mv mid.vmdk base.vmdk sub
check "a parent's new place is said without looking" "$VDISK" rebase -u -b sub/mid.vmdk -F vmdk top.vmdk
check "and the disk is the same" reads top.vmdk top.raw
check_fails 63 "a parent of another format is refused" "$VDISK" rebase -u -b top.raw -F raw top.vmdk
check "and nothing has changed" reads top.vmdk top.raw
done_testing
