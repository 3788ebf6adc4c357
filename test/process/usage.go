package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Peak is the most resident memory the process ever had, or had since ResetPeak,
// in bytes: VmHWM of proc_pid_status(5).
func (p *Process) Peak() (int64, error) { return p.memory("VmHWM:") }

// Resident is the process's resident memory now, in bytes: VmRSS of
// proc_pid_status(5).
func (p *Process) Resident() (int64, error) { return p.memory("VmRSS:") }

func (p *Process) memory(field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse memory of %s: %w", p.name, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s for %s", field, p.name)
}

// CPU is how much processor time the process has used so far, its workers'
// included, which are its children that live: utime and stime of proc_pid_stat(5).
func (p *Process) CPU() (time.Duration, error) {
	sum, _, err := processorTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", p.name, err)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		// One that ended meanwhile is none of ours: workers live as long as
		// their parent.
		if used, parent, err := processorTime(pid); err == nil && parent == p.cmd.Process.Pid {
			sum += used
		}
	}
	return sum, nil
}

// tick is the unit of times in proc_pid_stat(5): USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = time.Second / 100

// processorTime reads what one process has used, and who its parent is.
func processorTime(pid int) (used time.Duration, parent int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in brackets, may hold anything; state, the third field, follows.
	_, rest, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("%q is no stat of a process", b)
	}
	var values [3]int64
	for i, field := range []int{1, 11, 12} { // ppid, utime, stime
		if values[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("parse stat: %w", err)
		}
	}
	return time.Duration(values[1]+values[2]) * tick, int(values[0]), nil
}

// ResetPeak makes Peak count from now; see proc_pid_clear_refs(5).
func (p *Process) ResetPeak() error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset peak memory of %s: %w", p.name, err)
	}
	return nil
}
