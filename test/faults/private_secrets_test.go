package faults

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// noSecrets fails the test if text holds one of the secrets.
func noSecrets(t *testing.T, secrets []string, where, text string) {
	t.Helper()
	for _, secret := range secrets {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s holds a secret: %.200q", where, text[max(0, i-80):])
		}
	}
}

// noSecretFiles fails the test if a file below dir holds one of the secrets.
func noSecretFiles(t *testing.T, secrets []string, dir string) {
	t.Helper()
	for _, file := range files(t, dir) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		noSecrets(t, secrets, file, string(content))
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
