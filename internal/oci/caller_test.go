package oci_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// However a credential is printed, alone or inside something else, it does not
// show.
func TestACredentialShowsItselfToNobody(t *testing.T) {
	cred := oci.NewCredential("MARKERuser", "MARKERsecret")
	if user, secret := cred.Login(); user != "MARKERuser" || secret != "MARKERsecret" {
		t.Fatalf("Login gives %q and %q", user, secret)
	}
	type hidden struct{ c oci.Credential }
	type shown struct{ C oci.Credential }
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%t", "%g", "%08b"} {
		for _, v := range []any{cred, &cred, shown{cred}, &shown{cred}, hidden{cred}, &hidden{cred}, []oci.Credential{cred}, map[string]oci.Credential{"a": cred}, oci.Approach{Credential: cred}} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	for _, v := range []any{cred, shown{cred}, hidden{cred}, oci.Approach{Credential: cred}.Credential} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		printed.Write(text)
	}
	for _, format := range []logrus.Formatter{&logrus.TextFormatter{}, &logrus.JSONFormatter{}} {
		log := logrus.New()
		log.SetOutput(&printed)
		log.SetFormatter(format)
		log.WithField("credential", cred).WithField("shown", shown{cred}).Info(cred)
	}
	// %x writes strings in hexadecimal.
	for _, marker := range []string{"MARKER", fmt.Sprintf("%x", "MARKER"), fmt.Sprintf("%X", "MARKER")} {
		if strings.Contains(printed.String(), marker) {
			t.Errorf("what was printed holds %s:\n%s", marker, printed.String())
		}
	}
	if !strings.Contains(printed.String(), "[redacted]") {
		t.Error("nothing tells that there is a credential")
	}
	if got := fmt.Sprint(oci.Credential{}); got != "none" {
		t.Errorf("no credential prints as %q", got)
	}
}
