package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// Answer is what the API server says.
type Answer struct {
	Status   int
	Body     string
	Warnings []string
}

// Call asks the API server as whoever has that token. Whatever it answers, within a
// minute, is no error.
func (s *Server) Call(ctx context.Context, token, method, path, contentType, body string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+s.Addr+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", contentType)
	resp, err := s.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, string(content), resp.Header.Values("Warning")}, err
}

// Get reads what is at path into out, as the admin.
func (s *Server) Get(ctx context.Context, path string, out any) error {
	a, err := s.Call(ctx, Admin, http.MethodGet, path, "application/json", "")
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("GET %s: status %d: %.300s", path, a.Status, a.Body)
	}
	return json.Unmarshal([]byte(a.Body), out)
}

// answers is ready when the API server has what is asked for, be it JSON or not.
func (s *Server) answers(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		a, err := s.Call(ctx, Admin, http.MethodGet, path, "application/json", "")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("status %d: %.300s", a.Status, a.Body)
		}
		return err
	}
}

// Kubectl is Tool with the kubectl in Bin.
func (s *Server) Kubectl(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	return s.Tool(t, s.program(t, "kubectl"), stdin, args...)
}

// Tool runs a program as the admin, with something on its standard input, and
// returns what it said. Its home is Dir. When it says that it failed, or takes
// longer than process.Patience, that is an error, with what it said.
func (s *Server) Tool(t testing.TB, program, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), process.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "KUBECONFIG=" + s.in(Admin+".kubeconfig")}
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("run %s: %v", program, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}

// Do is Kubectl where it has to succeed, with nothing on its standard input.
func (s *Server) Do(t testing.TB, args ...string) string {
	t.Helper()
	return s.DoWith(t, "", args...)
}

// DoWith is Do with something on its standard input.
func (s *Server) DoWith(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
