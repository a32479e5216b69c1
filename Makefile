# SPDX-License-Identifier: LGPL-2.1-or-later
# One non-recursive makefile for GNU Make. `make help` lists the targets.
# Variables for builders: B CC CFLAGS LDFLAGS PREFIX BINDIR LIBDIR INCLUDEDIR MANDIR NBDKIT_PLUGINDIR DESTDIR SANITIZE WERROR V

VERSION   := 1.0.0
SOVERSION := 1

B         ?= build
PREFIX    ?= /usr/local
BINDIR    ?= $(PREFIX)/bin
LIBDIR    ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR    ?= $(PREFIX)/share/man
UNITDIR   ?= $(LIBDIR)/systemd/system
PKG_CONFIG ?= pkg-config
CFLAGS    ?= -O2 -g
Q         := $(if $(V),,@)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wundef \
        -Wformat=2 -Wvla $(if $(or $(WERROR),$(CI)),-Werror)

LIB_PKGS := libgcrypt libcryptsetup zlib libzstd
OPT_PKGS := $(shell for p in libisal libdeflate liburing gpgme libnbd libcurl; do $(PKG_CONFIG) --exists $$p 2>/dev/null && echo $$p; done)
HAVE     := $(if $(filter libisal,$(OPT_PKGS)),-DVD_HAVE_ISAL) $(if $(filter libdeflate,$(OPT_PKGS)),-DVD_HAVE_LIBDEFLATE) \
            $(if $(filter liburing,$(OPT_PKGS)),-DVD_HAVE_URING) $(if $(filter gpgme,$(OPT_PKGS)),-DVD_HAVE_GPGME) \
            $(if $(filter libnbd,$(OPT_PKGS)),-DVD_HAVE_LIBNBD) $(if $(filter libcurl,$(OPT_PKGS)),-DVD_HAVE_CURL)
HELPER_PKGS := $(shell for p in gnutls libcurl tss2-esys p11-kit-1 nbdkit fuse3; do $(PKG_CONFIG) --exists $$p 2>/dev/null && echo $$p; done)
HAVE     += $(if $(filter fuse3,$(HELPER_PKGS)),-DVD_HAVE_FUSE)
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIB_PKGS) $(OPT_PKGS) $(HELPER_PKGS) json-c 2>/dev/null)
LIB_LIBS  := $(shell $(PKG_CONFIG) --libs $(LIB_PKGS) $(OPT_PKGS) 2>/dev/null) -lpthread -lm
TOOL_LIBS := $(shell $(PKG_CONFIG) --libs json-c libqrencode libgcrypt libzstd $(filter libcurl libnbd,$(OPT_PKGS)) $(filter fuse3,$(HELPER_PKGS)) 2>/dev/null) -lpthread -lm
TEST_LIBS := -lcmocka

ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIC -fvisibility=hidden -pthread $(WARN) -MMD -MP \
             $(PKG_CFLAGS) $(HAVE) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) $(CFLAGS)
ALL_LDFLAGS = $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)

LIB_SRC   := $(sort $(wildcard libvdisk/*/*.c formats/*.c formats/*/*.c keys/*.c))
ifeq ($(filter libisal,$(OPT_PKGS)),)
LIB_SRC   := $(filter-out libvdisk/codec/deflate_isal.c,$(LIB_SRC))
endif
ifeq ($(filter libdeflate,$(OPT_PKGS)),)
LIB_SRC   := $(filter-out libvdisk/codec/deflate_libdeflate.c,$(LIB_SRC))
endif
ifeq ($(filter liburing,$(OPT_PKGS)),)
LIB_SRC   := $(filter-out libvdisk/io/uring.c,$(LIB_SRC))
endif
ifeq ($(filter gpgme,$(OPT_PKGS)),)
LIB_SRC   := $(filter-out keys/openpgp.c,$(LIB_SRC))
endif
TOOL_SRC  := $(sort $(wildcard tools/*.c tools/wipe/*.c tools/ledger/*.c tools/drill/*.c tools/backup/*.c tools/fsview/*.c tools/scan/*.c) tools/keyhelpers/base64.c)
ifeq ($(filter libcurl,$(OPT_PKGS)),)
TOOL_SRC  := $(filter-out tools/backup/store_rest.c,$(TOOL_SRC))
endif
# Draws certificates.
PDF       := $(if $(shell $(PKG_CONFIG) --exists pangocairo && echo yes),$(B)/vdisk-pdf)
# Programs for --key-command, each where the library is that it needs. What they share is protocol.c, options.c and base64.c.
HELPERS   := vdisk-key-clevis $(if $(filter gnutls,$(HELPER_PKGS)),vdisk-key-kmip) $(if $(filter libcurl,$(HELPER_PKGS)),vdisk-key-vault) \
             $(if $(filter tss2-esys,$(HELPER_PKGS)),vdisk-key-tpm2) $(if $(filter p11-kit-1,$(HELPER_PKGS)),vdisk-key-pkcs11)
KMIP_MESSAGES := tools/keyhelpers/kmip_message.c tools/keyhelpers/kmip_ttlv.c
# nbdkit looks for its plugins in one folder of its own, whatever PREFIX says.
NBDKIT_PLUGINDIR ?= $(shell $(PKG_CONFIG) --variable=plugindir nbdkit 2>/dev/null)
PLUGIN_SRC := $(if $(filter nbdkit,$(HELPER_PKGS)),$(sort $(wildcard tools/nbdkit/*.c)))
# What takes file systems apart is a program of its own, the only one that has their libraries: built where they are.
READER_PKGS := ext2fs com_err libntfs-3g libseccomp
READER_SRC := $(sort $(wildcard tools/fsview/reader/*.c)) tools/fail.c
READER_LIBS := $(shell $(PKG_CONFIG) --libs $(READER_PKGS) 2>/dev/null)
READER    := $(if $(READER_LIBS),$(B)/vdisk-fsview)
UNIT_SRC  := $(sort $(wildcard tests/unit/test_*.c))
SUP_SRC   := $(sort $(wildcard tests/support/*.c))
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
# Programs that the shell tests drive: one a file.
PROG_SRC  := $(sort $(wildcard tests/crash/*.c tests/interop/*.c))
UNITS     := $(sort $(wildcard tools/systemd/*))
MAN_PAGES := $(sort $(wildcard tools/man/*.[1-9]))
SCRIPTS   := $(sort $(wildcard tests/cli/*.sh tests/interop/*.sh tests/crash/*.sh))

obj = $(patsubst %.c,$(B)/%.o,$(1))
SO       := $(B)/libvdisk.so.$(SOVERSION)
LIB_A    := $(B)/libvdisk.a
SUP_A    := $(B)/tests/support.a
UNIT_BIN := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
PROG_BIN := $(patsubst %.c,$(B)/%,$(PROG_SRC))
REPLAY_BIN := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%.replay,$(FUZZ_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(FUZZ_SRC))
BENCH_BIN := $(patsubst %.c,$(B)/%,$(BENCH_SRC))
HELPER_BIN := $(addprefix $(B)/,$(HELPERS))
PLUGIN   := $(if $(PLUGIN_SRC),$(B)/nbdkit-vdisk-plugin.so)

.PHONY: all help bench-backup check check-run nightly nightly-run demo demo-run bench bench-run bench-wipe lint fuzz coverage install uninstall dist deps clean
.SECONDARY:
.DELETE_ON_ERROR:

all: vdisk $(READER) $(PDF) $(SO) $(B)/libvdisk.so $(LIB_A) $(HELPER_BIN) $(PLUGIN)

help:
	@echo 'all (default)   libvdisk.so.$(SOVERSION), libvdisk.a and the vdisk command'
	@echo 'deps            install what building and testing need (Debian 12, as root or with sudo)'
	@echo 'demo            deps, build, and a real disk encrypted and decrypted before your eyes'
	@echo 'check           deps, build, all tests; the last line counts them'
	@echo 'nightly         the same in its long forms, and fuzzing: some hours'
	@echo 'bench           speed beside qemu-img on this machine, as ratios'
	@echo 'bench-backup    backups beside restic and borg, as a table'
	@echo 'bench-wipe      what wipe and its peers leave behind, as a table; as root'
	@echo 'lint fuzz coverage install uninstall dist clean'

# ---- rules ---------------------------------------------------------------------------------------------------

# Tools see the installed header and their own; everything else names files from the root.
$(B)/tools/%.o: INC = -Ilibvdisk/include -Itools
$(B)/%.o: INC ?= -I.
$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo '  CC    $<')
	$(Q)$(CC) $(INC) $(ALL_CFLAGS) $(EXTRA) -c -o $@ $<
$(call obj,$(LIB_SRC)): EXTRA = -DVDISK_BUILDING

$(SO): $(call obj,$(LIB_SRC)) libvdisk/libvdisk.map
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -Wl,-soname,$(@F) -Wl,--version-script=libvdisk/libvdisk.map \
	   $(if $(SANITIZE),,-Wl,-z,defs) -Wl,-z,relro,-z,now -o $@ $(filter %.o,$^) $(LIB_LIBS)
$(B)/libvdisk.so: $(SO)
	@ln -sf $(<F) $@
$(LIB_A): $(call obj,$(LIB_SRC))
	$(if $(Q),@echo '  AR    $@')
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(SUP_A): $(call obj,$(SUP_SRC))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# What is in the build tree runs from any folder and finds the library beside it; what is installed has no rpath.
$(B)/vdisk: $(call obj,$(TOOL_SRC)) $(SO) $(B)/libvdisk.so
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-rpath,'$$ORIGIN' -Wl,-z,relro,-z,now -o $@ $(call obj,$(TOOL_SRC)) -L$(B) -lvdisk $(TOOL_LIBS)
$(B)/installed/vdisk: $(call obj,$(TOOL_SRC)) $(SO) $(B)/libvdisk.so
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-z,relro,-z,now -o $@ $(call obj,$(TOOL_SRC)) -L$(B) -lvdisk $(TOOL_LIBS)
$(B)/nbdkit-vdisk-plugin.so: RPATH = -Wl,-rpath,'$$ORIGIN'
$(B)/nbdkit-vdisk-plugin.so $(B)/installed/nbdkit-vdisk-plugin.so: $(call obj,$(PLUGIN_SRC)) $(SO) $(B)/libvdisk.so
	@mkdir -p $(@D)
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared $(RPATH) -Wl,-z,relro,-z,now -o $@ $(call obj,$(PLUGIN_SRC)) -L$(B) -lvdisk
vdisk: $(B)/vdisk
	@ln -sf $(B)/vdisk vdisk

$(HELPER_BIN): $(B)/vdisk-key-%: $(B)/tools/keyhelpers/%.o $(call obj,$(addprefix tools/keyhelpers/,protocol.c base64.c options.c))
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-z,relro,-z,now -o $@ $^ $(shell $(PKG_CONFIG) --libs json-c $(HELPER_NEEDS))
$(B)/vdisk-key-kmip: $(call obj,tools/keyhelpers/kmip_tls.c $(KMIP_MESSAGES))
$(B)/vdisk-key-kmip: HELPER_NEEDS = gnutls
$(B)/vdisk-key-vault: HELPER_NEEDS = libcurl
$(B)/vdisk-key-tpm2: HELPER_NEEDS = tss2-esys tss2-mu tss2-rc tss2-tctildr
$(B)/vdisk-key-pkcs11: $(call obj,tools/keyhelpers/pin.c)
$(B)/vdisk-key-pkcs11: HELPER_NEEDS = p11-kit-1

$(B)/tools/pdf/pdf.o: EXTRA = $(shell $(PKG_CONFIG) --cflags pangocairo)
$(B)/vdisk-pdf: $(B)/tools/pdf/pdf.o
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-z,relro,-z,now -o $@ $^ $(shell $(PKG_CONFIG) --libs pangocairo)
$(B)/vdisk-fsview: $(call obj,$(READER_SRC))
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-z,relro,-z,now -o $@ $^ $(READER_LIBS)

$(UNIT_BIN) $(PROG_BIN) $(BENCH_BIN): $(B)/%: $(B)/%.o $(SUP_A) $(LIB_A)
	$(if $(Q),@echo '  LD    $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIB_LIBS) $(TEST_LIBS)
# Programs that test parts of the command are linked with it: one a line.
TOOL_TESTS := tests/unit/test_opts \
              tests/unit/test_certificate \
              tests/unit/test_book \
              tests/unit/test_fsview \
              tests/unit/test_store \
              tests/unit/test_backup \
              tests/interop/changes \
              tests/interop/store
$(patsubst %,$(B)/%.o,$(TOOL_TESTS)): INC = -Ilibvdisk/include -Itools -I.
$(addprefix $(B)/,$(TOOL_TESTS)): $(filter-out $(B)/tools/main.o,$(call obj,$(TOOL_SRC)))
$(addprefix $(B)/,$(TOOL_TESTS)): TEST_LIBS += $(TOOL_LIBS)
# So is the view of files, by a program that shows what it sees.
VIEW_OBJ := $(call obj,$(wildcard tools/fsview/*.c) tools/fail.c tools/signals.c)
$(B)/tests/interop/fsview.o: INC = -Ilibvdisk/include -Itools
$(B)/tests/interop/fsview: $(VIEW_OBJ)
$(B)/tests/unit/test_sandbox.o: INC = -Ilibvdisk/include -Itools -I.
$(B)/tests/unit/test_sandbox: $(call obj,tools/fsview/reader/sandbox.c tools/fail.c)
$(B)/tests/unit/test_sandbox: TEST_LIBS += -lseccomp
# So are the programs for --key-command.
$(B)/tests/unit/test_keyprotocol.o: INC = -I. -Itools
$(B)/tests/unit/test_keyprotocol: $(call obj,tools/keyhelpers/protocol.c tools/keyhelpers/base64.c)
$(B)/tests/unit/test_keyprotocol: TEST_LIBS += $(TOOL_LIBS)
$(B)/tests/unit/test_kmip.o $(B)/tests/fuzz/fuzz_kmip.o: INC = -I. -Itools
$(B)/tests/unit/test_kmip $(B)/tests/fuzz/fuzz_kmip.replay: $(call obj,$(KMIP_MESSAGES))
$(B)/fuzz/fuzz_kmip: FUZZED = -Itools $(KMIP_MESSAGES)

# What a repository's server or its disk may hold is read by parts of the command.
$(B)/tests/fuzz/fuzz_repository.o: INC = -Ilibvdisk/include -Itools -I.
$(B)/tests/fuzz/fuzz_repository.replay: $(filter-out $(B)/tools/main.o,$(call obj,$(TOOL_SRC)))
$(B)/tests/fuzz/fuzz_repository.replay: FUZZ_LIBS = $(TOOL_LIBS)
$(B)/fuzz/fuzz_repository: FUZZED = -Ilibvdisk/include -Itools $(filter-out tools/main.c,$(TOOL_SRC)) $(TOOL_LIBS)

$(B)/tests/fuzz/%.replay: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(SUP_A) $(LIB_A)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIB_LIBS) $(FUZZ_LIBS)

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- tests ---------------------------------------------------------------------------------------------------

check: deps
	@$(MAKE) --no-print-directory check-run
check-run: all lint $(UNIT_BIN) $(PROG_BIN) $(REPLAY_BIN)
	@B=$(B) tests/run $(UNIT_BIN) $(REPLAY_BIN) $(SCRIPTS)

# The long forms: every crash state, more of all that is random with seeds that change by the day, fuzzing. Some hours.
NIGHT = VD_TEST_SECONDS=$${VD_TEST_SECONDS:-36000} VD_RANDOM_SEED=$${VD_RANDOM_SEED:-$$(date +%Y%m%d)} \
        VD_RANDOM_OPS=$${VD_RANDOM_OPS:-5000} VD_CRASH_STATES=$${VD_CRASH_STATES:-0} VD_KILL_ROUNDS=$${VD_KILL_ROUNDS:-200} \
        VD_CRASH_RANDOM=$${VD_CRASH_RANDOM:-10} VD_CRASH_FAULTS=$${VD_CRASH_FAULTS:-5000} VD_INPLACE_KILLS=$${VD_INPLACE_KILLS:-50} VD_INPLACE_MIB=$${VD_INPLACE_MIB:-1024}
nightly: deps
	@$(MAKE) --no-print-directory nightly-run
nightly-run: FUZZ_SECONDS = 1800
nightly-run: all $(UNIT_BIN) $(PROG_BIN) $(REPLAY_BIN)
	@B=$(B) $(NIGHT) tests/run $(UNIT_BIN) $(REPLAY_BIN) $(SCRIPTS)
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)

lint:
	@tests/lint/layers
	@tests/lint/header
	@tests/lint/sizes
	@tests/lint/names
	@if command -v mandoc >/dev/null; then for m in $(MAN_PAGES); do mandoc -T lint -W warning $$m || exit 1; done; fi

# libFuzzer on each parser for FUZZ_SECONDS seconds, from the corpus that `check` replays.
FUZZ_SECONDS ?= 60
$(B)/fuzz/%: tests/fuzz/%.c
	@mkdir -p $(@D)
	$(Q)clang -I. -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DVDISK_BUILDING -O1 -g -pthread $(PKG_CFLAGS) $(HAVE) \
	   -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -o $@ $< $(FUZZED) $(LIB_SRC) $(LIB_LIBS)
fuzz: $(FUZZ_BIN)
	@for f in $(FUZZ_BIN); do n=$${f##*/fuzz_}; mkdir -p $(B)/fuzz/corpus-$$n; \
	   echo "fuzzing $$n for $(FUZZ_SECONDS) s"; \
	   $$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=10 -artifact_prefix=$(B)/fuzz/ \
	      $(B)/fuzz/corpus-$$n tests/fuzz/corpus/$$n || exit 1; done

coverage:
	@$(MAKE) --no-print-directory B=build/coverage CFLAGS='-O0 -g --coverage' LDFLAGS=--coverage check-run
	@cd build/coverage && gcov -r -s . $$(find libvdisk formats keys tools -name '*.o') 2>/dev/null | \
	   awk '/^File/ {f=$$2} /^Lines executed/ {sub("Lines executed:",""); print $$1, $$3, f}' | grep -v "'/usr" | sort -n > coverage.txt
	@cat build/coverage/coverage.txt

bench: deps
	@$(MAKE) --no-print-directory bench-run
bench-run: all $(BENCH_BIN)
	@B=$(B) tests/bench/run
	@B=$(B) tests/bench/formats
	@B=$(B) tests/bench/inplace
	@B=$(B) tests/bench/wipe
	@B=$(B) tests/bench/nbd

# What shred, scrub, nwipe, virsh vol-wipe and vdisk wipe leave behind, and what they say. As root: it mounts.
bench-wipe: DEPS += scrub nwipe
bench-wipe: deps all
	@tests/bench/survivors

bench-backup: DEPS += borgbackup debootstrap fdisk cpio
bench-backup: deps all
	@B=$(B) tests/bench/backup

demo: deps
	@$(MAKE) --no-print-directory demo-run
demo-run: all
	@tests/demo

# ---- installing ----------------------------------------------------------------------------------------------

install: all $(B)/installed/vdisk $(if $(PLUGIN),$(B)/installed/nbdkit-vdisk-plugin.so)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(MANDIR)/man1
	install -m 755 $(B)/installed/vdisk $(DESTDIR)$(BINDIR)/vdisk
	install -m 755 $(HELPER_BIN) $(READER) $(PDF) $(DESTDIR)$(BINDIR)
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/libvdisk.so.$(VERSION)
	ln -sf libvdisk.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libvdisk.so.$(SOVERSION)
	ln -sf libvdisk.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libvdisk.so
	install -m 644 libvdisk/include/vdisk.h $(DESTDIR)$(INCLUDEDIR)/vdisk.h
	sed -e 's|@PREFIX@|$(PREFIX)|;s|@LIBDIR@|$(LIBDIR)|;s|@INCLUDEDIR@|$(INCLUDEDIR)|;s|@VERSION@|$(VERSION)|' \
	   libvdisk/libvdisk.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/libvdisk.pc
	$(if $(PLUGIN),install -d $(DESTDIR)$(NBDKIT_PLUGINDIR) && install -m 755 $(B)/installed/nbdkit-vdisk-plugin.so $(DESTDIR)$(NBDKIT_PLUGINDIR))
	$(if $(MAN_PAGES),install -m 644 $(MAN_PAGES) $(DESTDIR)$(MANDIR)/man1)
	install -d $(DESTDIR)$(UNITDIR)
	for u in $(UNITS); do sed 's|/usr/bin/|$(BINDIR)/|' $$u > $(DESTDIR)$(UNITDIR)/$${u##*/}; done
	$(if $(DESTDIR),,ldconfig || true)

uninstall:
	rm -f $(if $(PLUGIN),$(DESTDIR)$(NBDKIT_PLUGINDIR)/nbdkit-vdisk-plugin.so) $(addprefix $(DESTDIR)$(BINDIR)/,vdisk vdisk-fsview vdisk-pdf $(HELPERS)) $(DESTDIR)$(INCLUDEDIR)/vdisk.h $(DESTDIR)$(LIBDIR)/pkgconfig/libvdisk.pc \
	   $(addprefix $(DESTDIR)$(LIBDIR)/,libvdisk.so libvdisk.so.$(SOVERSION) libvdisk.so.$(VERSION)) \
	   $(addprefix $(DESTDIR)$(MANDIR)/man1/,$(notdir $(MAN_PAGES))) $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))

dist:
	git archive --prefix=vdisk-$(VERSION)/ -o vdisk-$(VERSION).tar.gz HEAD

# Debian 12 names. Nothing is touched when all is there already.
DEPS := build-essential pkg-config libgcrypt20-dev libcryptsetup-dev zlib1g-dev libzstd-dev libjson-c-dev libqrencode-dev \
        libisal-dev libdeflate-dev liburing-dev libcmocka-dev libgpgme-dev gpg gpg-agent libvirt-clients libvirt-daemon libxml2-utils qemu-utils libnbd-bin libnbd-dev qemu-system-x86 debootstrap extlinux syslinux-common cryptsetup-bin age keyutils nbdkit nbdkit-plugin-dev libfuse3-dev fuse3 fio e2fsprogs btrfs-progs xfsprogs \
        libpango1.0-dev fonts-wqy-microhei poppler-utils mandoc python3 git openssh-client procps \
        libgnutls28-dev $(if $(filter libcurl,$(HELPER_PKGS)),,libcurl4-gnutls-dev) restic rclone python3-pykmip clevis tang-common socat openssl curl \
        libtss2-dev swtpm libtss2-tcti-swtpm0 tpm2-tools libp11-kit-dev softhsm2 opensc \
        libext2fs-dev ntfs-3g-dev libseccomp-dev ntfs-3g lvm2 fdisk dosfstools mtools libcap2-bin
deps:
	@missing=$$(dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $(DEPS) 2>/dev/null | awk '$$2=="installed" {print $$1}' > $(B).deps-have; \
	   for p in $(DEPS); do grep -qx "$$p" $(B).deps-have || echo $$p; done; rm -f $(B).deps-have); \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "installing:" $$missing; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

clean:
	rm -rf $(B) build vdisk
