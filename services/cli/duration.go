package cli

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"spate/shared/notify/endpoints"
)

// duration reads a length of time as people write it, also in days: 90m, 12h, 7d, 1d12h.
func duration(text string) (time.Duration, error) {
	number, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	days, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0, errors.New("the number of days is not a whole number up to 65535")
	}
	out := time.Duration(days) * 24 * time.Hour
	if rest == "" {
		return out, nil
	}
	d, err := time.ParseDuration(rest)
	if err == nil && d < 0 {
		err = errors.New("the part after the days is negative")
	}
	return out + d, err
}

// durations is the option with which every flag that is a length of time is read by duration.
var durations = kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
	token := ctx.Scan.Peek()
	text := token.String()
	if token.IsEOL() || !token.IsValue() && !negative.MatchString(text) {
		return errors.New("requires a duration, such as 90m, 12h or 7d")
	}
	ctx.Scan.Pop()
	d, err := duration(text)
	if err != nil || d < 0 && token.InferredType() != kong.FlagValueToken {
		return fmt.Errorf("%q is not a duration; use a number and a unit, such as 90m, 12h or 7d", text)
	}
	target.SetInt(int64(d))
	return nil
}))

// negative is what would otherwise be taken for a flag.
var negative = regexp.MustCompile(`^-[0-9.]`)

// flagged replaces the names of fields at the beginning of problems with those of the flags that set them: pairs of a field and a flag.
func flagged(err error, pairs ...string) error {
	var out []error
	for _, problem := range endpoints.Problems(err) {
		field, rest, _ := strings.Cut(problem.Error(), ": ")
		for i := 0; i+1 < len(pairs); i += 2 {
			if field == pairs[i] {
				problem = errors.New(pairs[i+1] + ": " + rest)
			}
		}
		out = append(out, problem)
	}
	return errors.Join(out...)
}
