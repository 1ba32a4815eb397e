package rule

import (
	"fmt"
	"regexp"
	rexp "regexp/syntax"
)

// maxRegexps bounds the instructions of all regular expressions of a file: a repeat makes thousands of them of a few characters.
const maxRegexps = 100_000

// compileRegexp compiles a regular expression.
func (c *checker) compileRegexp(text string) (*regexp.Regexp, error) {
	if c.regexps == nil {
		c.regexps = new(int)
	}
	tree, err := rexp.Parse(text, rexp.Perl)
	if err != nil {
		return nil, err
	}
	if *c.regexps += instructions(tree); *c.regexps > maxRegexps {
		return nil, fmt.Errorf("the regular expressions in the file need more than %d instructions; use smaller repeat counts", maxRegexps)
	}
	return regexp.Compile(text)
}

// instructions estimates the size of a compiled regular expression.
func instructions(re *rexp.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == rexp.OpRepeat {
		n *= max(re.Min+1, re.Max)
	}
	return n
}
