package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"spate/shared/rule/syntax"
)

// secretVariables have no flag.
var secretVariables = []string{"SPATE_SASL_PASSWORD", "SPATE_SASL_OAUTH_CLIENT_SECRET", "SPATE_HTTP_TOKEN", "SPATE_SCHEMA_REGISTRY_PASSWORD"}

// others are variables of this name that are not the program's: of docker-compose.yml, of the tests, and what Kubernetes sets for a service spate.
var others = regexp.MustCompile(`^SPATE_(TEST_.*|[A-Z]+_PORT|POSTGRES_PASSWORD|GRAFANA_PASSWORD|IMAGE|PORT(_.*)?|SERVICE_(HOST|PORT.*))$`)

// unknownVariables returns a warning for each variable in the environment that looks like a setting but is not one, with the most similar setting, if any.
func unknownVariables(model *kong.Node, environment []string) (lines []string) {
	known := slices.Clone(secretVariables)
	_ = kong.Visit(model, func(node kong.Visitable, next kong.Next) error { // its error is that of next, which has none
		if flag, ok := node.(*kong.Flag); ok {
			known = append(known, flag.Envs...)
		}
		return next(nil)
	})
	for _, e := range environment {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "SPATE_") || slices.Contains(known, name) || others.MatchString(name) {
			continue
		}
		lines = append(lines, name+" is not a setting of spate"+didYouMean(name, known))
	}
	slices.Sort(lines)
	return lines
}

// didYouMean asks whether the most similar name is meant, if there is one.
func didYouMean(name string, known []string) string {
	best, distance := "", min(4, len(name)/2+1)
	for _, k := range known {
		if d := syntax.Distance(name, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
