package store

import "testing"

func TestParseLimit(t *testing.T) {
	const total = 1000 << 30
	for text, want := range map[string]int64{
		"50GiB":   50 << 30,
		"50 GiB":  50 << 30,
		" 50gib ": 50 << 30,
		"1.5K":    1536,
		"10Mi":    10 << 20,
		"2TB":     2_000_000_000_000,
		"1kb":     1000,
		"4096":    4096,
		"7b":      7,
		"0":       0,
		"20%":     200 << 30,
		"0.1 %":   1 << 30,
		"100%":    total,
	} {
		limit, err := ParseLimit(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := limit.of(total); got != want || limit.IsZero() {
			t.Errorf("%q is %d bytes, want %d", text, got, want)
		}
		again, err := ParseLimit(limit.String())
		if err != nil || again != limit {
			t.Errorf("%q is written %q, which reads %+v, %v", text, limit, again, err)
		}
	}
	for _, text := range []string{
		"", "%", "GiB", "-1", "-5%", "101%", "1e9", "0x10", "5 5", "1XiB", "1Gigabyte", "1KiBB", "8192PiB",
		"99999999999999999999", "1..5G", "NaN", "inf", "1 % 2", "\x00", "20%%",
	} {
		if limit, err := ParseLimit(text); err == nil {
			t.Errorf("%q is read as %v", text, limit)
		}
	}
	if !(Limit{}).IsZero() || Bytes(0).IsZero() || Percent(0).IsZero() {
		t.Error("only the zero Limit says nothing")
	}
	if got := Percent(0).of(total); got != 0 {
		t.Errorf("0 %% is %d", got)
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, text := range []string{"50GiB", "20%", "0", "1.5 TB", "-1", "9e99", "."} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limit, err := ParseLimit(text)
		if err != nil {
			return
		}
		if n := limit.of(1 << 40); n < 0 {
			t.Fatalf("%q is %d bytes", text, n)
		}
		again, err := ParseLimit(limit.String())
		if err != nil || again.of(1<<40) != limit.of(1<<40) {
			t.Fatalf("%q is written %q, which reads %v, %v", text, limit, again, err)
		}
	})
}
