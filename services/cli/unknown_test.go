package cli

import (
	"slices"
	"testing"

	"github.com/alecthomas/kong"
)

func TestUnknownVariables(t *testing.T) {
	var p program
	parser, err := kong.New(&p, kong.Vars{"services": ""})
	if err != nil {
		t.Fatal(err)
	}
	got := unknownVariables(parser.Model.Node, []string{
		"PATH=/bin", "SPATE_TRESHOLD=7", "SPATE_THRESHOLD=7", "SPATE_SASL_PASSWORD=geheim", "SPATE_SASL_PASWORD=geheim", "SPATE_HTTP_TOKEN=x", "SPATE_TEST_SHARED=x", "SPATE_KAFKA_PORT=1", "SPATE_GRAFANA_PASSWORD=x",
		"SPATE_WHAT_IS_THIS=geheim", "SPATEX=1",
	})
	want := []string{
		"SPATE_SASL_PASWORD is not a setting of spate; did you mean SPATE_SASL_PASSWORD?",
		"SPATE_TRESHOLD is not a setting of spate; did you mean SPATE_THRESHOLD?",
		"SPATE_WHAT_IS_THIS is not a setting of spate",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
