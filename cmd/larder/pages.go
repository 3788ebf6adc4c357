package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// forgetPages has the kernel forget which pages of the program's own file this
// process has looked at: starting it touches most of them, serving does not, and
// they count as its memory for ever. What is used comes back from the page cache
// as it is used. It is about mappings that cannot be written to, so nothing is
// lost: MADV_DONTNEED of madvise(2).
func forgetPages() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read own mappings: %w", err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	for _, m := range readOnly(maps, exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("forget pages: %w", errno)
		}
	}
	return nil
}

// mapping is a part of the address space, end excluded.
type mapping struct{ start, end uintptr }

// readOnly returns the mappings of a file that cannot be written to; maps has the
// form of proc_pid_maps(5). Lines it does not understand are left alone.
func readOnly(maps []byte, file string) []mapping {
	var all []mapping
	for line := range bytes.Lines(maps) {
		fields := bytes.Fields(line)
		if len(fields) != 6 || string(fields[5]) != file || len(fields[1]) != 4 || fields[1][1] != '-' || fields[1][3] != 'p' {
			continue
		}
		from, to, _ := bytes.Cut(fields[0], []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, strconv.IntSize)
		end, err2 := strconv.ParseUint(string(to), 16, strconv.IntSize)
		if err1 == nil && err2 == nil && start < end {
			all = append(all, mapping{uintptr(start), uintptr(end)})
		}
	}
	return all
}
