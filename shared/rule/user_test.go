package rule

import (
	"testing"
)

// TestUserInExpressions: the user of the built-in table is a number or a text. In an expression it is the number, also if it is in quotes, as a BIGINT of an event is.
func TestUserInExpressions(t *testing.T) {
	c := &compiler{}
	convert := c.conversion(Type{Kind: Token}, Type{Kind: BigInt})
	for token, want := range map[string]string{`7`: "7", `"8"`: "8", `" 9 "`: "9", `"+9"`: "9", `"ann"`: "null", `"9 lives"`: "null", `"-12"`: "-12"} {
		got := "null"
		if v := convert(TokenValue([]byte(token))); !v.IsNull() {
			got = string(AppendJSON(nil, Type{Kind: BigInt}, v))
		}
		plain := "null"
		if v, _ := FromJSON(Type{Kind: BigInt}, []byte(token), nil); !v.IsNull() {
			plain = string(AppendJSON(nil, Type{Kind: BigInt}, v))
		}
		if got != want || plain != want {
			t.Errorf("%s: %s as the user, %s as a BIGINT, want %s", token, got, plain, want)
		}
	}
}
