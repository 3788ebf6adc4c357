package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"testing"
)

func TestReadOnlyMappings(t *testing.T) {
	maps := `00400000-00d00000 r-xp 00000000 fe:00 1 /bin/larder
00d00000-01600000 r--p 00900000 fe:00 1 /bin/larder
01600000-01700000 rw-p 01200000 fe:00 1 /bin/larder
01700000-01800000 r--s 00000000 fe:00 1 /bin/larder
c000000000-c000400000 rw-p 00000000 00:00 0
7f00-7e00 r--p 00000000 fe:00 1 /bin/larder
zz-7e00 r--p 00000000 fe:00 1 /bin/larder
7ffd000000-7ffd100000 r-xp 00000000 fe:00 2 /lib/other
`
	want := []mapping{{0x400000, 0xd00000}, {0xd00000, 0x1600000}}
	if got := readOnly([]byte(maps), "/bin/larder"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The program goes on as before, with fewer of its pages counted as its memory.
func TestForgetPages(t *testing.T) {
	resident := func() int {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := bytes.Cut(status, []byte("RssFile:"))
		kib, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
		if err != nil {
			t.Fatal(err)
		}
		return kib
	}
	before := resident()
	if err := forgetPages(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after >= before {
		t.Errorf("%d KiB of files are resident, before it were %d", after, before)
	}
}
