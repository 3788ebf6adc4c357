package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	stdin, end := io.Pipe()
	out, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(t.Context(), []string{"-image", "demo/app:v1=1KiB,2MiB", "-fault", "manifest:503=1", "-stdin"}, stdin, stdout)
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Images) != 1 || r.Images[0].Reference != r.Address+"/demo/app:v1" || r.Images[0].Layers != 2 || r.Images[0].Bytes < 2<<20 {
		t.Errorf("report %s", line)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for _, want := range []int{503, 200} {
		resp, err := (&http.Client{Transport: tr}).Get(r.URL + "/v2/demo/app/manifests/v1")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || want == 200 && resp.Header.Get("Docker-Content-Digest") != r.Images[0].Digest {
			t.Errorf("%d %v, want %d", resp.StatusCode, resp.Header, want)
		}
	}
	_ = end.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFaultNames(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-faults"}, nil, &out); err != nil || !strings.Contains(out.String(), "gzip-claimed\n") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-image", "a=1"},
		{"-image", "a:b"},
		{"-image", "a:b=x"},
		{"-image", "a:b=0"},
		{"-image", "a:b=99999999999GiB"},
		{"-rate", "fast"},
		{"-fault", "cut"},
		{"-fault", "blob:nothing"},
		{"-fault", "blob:cut=0"},
		{"-nonsense"},
	} {
		if err := run(t.Context(), args, nil, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v, want a usage error", args, err)
		}
	}
}
