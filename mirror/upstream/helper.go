package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// helperLogin is how long what a helper gave is used before it is run again.
// Its answers do not say how long they last; the shortest-lived known, Google's
// access tokens, may have that long to live when they are given.
const helperLogin = 5 * time.Minute

// helperName is what may follow docker-credential- in a program's name.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkHelper refuses a name that is not one program's in the search path.
func checkHelper(helper string) error {
	if !helperName.MatchString(helper) {
		return errors.New("a credential helper's name is wanted, as in docker-credential-<name>")
	}
	return nil
}

// runHelper asks a credential helper of Docker's for the credential of a
// registry (the protocol is docker-credential-helpers' "get": the server's name
// on standard input, JSON on standard output). It gives none if the helper has
// none.
func runHelper(ctx context.Context, helper, server string) (auth.Credential, error) {
	if err := checkHelper(helper); err != nil {
		return auth.EmptyCredential, err
	}
	program := "docker-credential-" + helper
	out, err := runProgram(ctx, []byte(server), nil, program, "get")
	if _, exited := errors.AsType[*exec.ExitError](err); exited && bytes.Contains(out, []byte("credentials not found")) {
		return auth.EmptyCredential, nil
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out, &answer) != nil || answer.Secret == "" {
		return auth.EmptyCredential, fmt.Errorf("run %s: its answer is not a credential", program)
	}
	if answer.Username == "<token>" {
		return auth.Credential{RefreshToken: answer.Secret}, nil
	}
	if answer.Username == "" {
		return auth.EmptyCredential, fmt.Errorf("run %s: its answer has no Username", program)
	}
	return auth.Credential{Username: answer.Username, Password: answer.Secret}, nil
}
