package activity

// UserText returns a canonical user token (Mark.User) as a person writes it: a string without its quotes and escapes,
// a number as it is.
func UserText(token []byte) string {
	if n := len(token); n >= 2 && token[0] == '"' && token[n-1] == '"' {
		if end, _ := skipString(token, 1); end == n {
			text, _ := appendUnquoted(nil, token[1:n-1])
			return string(text)
		}
	}
	return string(token)
}

// UserToken returns the canonical tokens of the users that a person may mean by text, the likeliest first: the number
// if text is a JSON number, and always the string. Text that can be no user (empty, invalid UTF-8, too long) gives
// tokens that no event has.
func UserToken(text string) []string {
	quoted := string(appendQuoted(nil, text))
	if isNumber(text) {
		return []string{text, quoted}
	}
	return []string{quoted}
}
