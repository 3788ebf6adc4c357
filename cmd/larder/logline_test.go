package main

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func TestLogLines(t *testing.T) {
	entry := &logrus.Entry{
		Time:    time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC),
		Level:   logrus.InfoLevel,
		Message: "request",
		Data: logrus.Fields{
			"b": 1, "a": "plain", "c": "two words", "d": 1.5, "e": true, "f": int64(-2), "g": errors.New("no \"way\"\n"),
			"h": "", "i": time.Second, "j": []int{1, 2}, "k": "k=v", "l": "<é>",
		},
	}
	for name, want := range map[bool]string{
		false: `time="2026-01-02T03:04:05.0000006Z" level=info msg=request a=plain b=1 c="two words" d=1.5 e=true f=-2 ` +
			`g="no \"way\"\n" h="" i=1s j="[1 2]" k="k=v" l="<é>"` + "\n",
		true: `{"time":"2026-01-02T03:04:05.0000006Z","level":"info","msg":"request","a":"plain","b":1,"c":"two words","d":1.5,"e":true,"f":-2,` +
			`"g":"no \"way\"\n","h":"","i":"1s","j":[1,2],"k":"k=v","l":"\u003cé\u003e"}` + "\n",
	} {
		got, err := lineFormatter{json: name}.Format(entry)
		if err != nil || string(got) != want {
			t.Errorf("json %v:\n got %s\nwant %s (%v)", name, got, want, err)
		}
		if name && !json.Valid(got) {
			t.Errorf("not JSON: %s", got)
		}
	}
}
