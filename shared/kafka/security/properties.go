package security

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// File is what a vendor's file of client settings says: the client.properties of Java's clients, or the configuration of librdkafka.
type File struct {
	Brokers  []string
	ClientID string
	RackID   string
	Config   Config
	// Login: the file asks for a login; its mechanism may be set elsewhere.
	Login bool
	// Registry are the settings of a schema registry, which are given apart.
	Registry []string
	// Ignored are the settings that spate decides by itself, in the order of the file.
	Ignored []string
}

// maxFile bounds what is read; such files have some ten lines.
const maxFile = 1 << 20

// ReadFile reads such a file. An error names the line and the setting, and never a value, which may be a secret.
func ReadFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("kafka-config: %w", err)
	}
	if info.Size() > maxFile {
		return File{}, fmt.Errorf("kafka-config: %s is %d bytes long, which is too large for a settings file", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return File{}, fmt.Errorf("kafka-config: %w", err)
	}
	f, err := parseFile(string(text))
	if err != nil {
		return File{}, fmt.Errorf("kafka-config: %s: %w", path, err)
	}
	return f, nil
}

func parseFile(text string) (File, error) {
	lines, err := parseProperties(text)
	if err != nil {
		return File{}, err
	}
	p := &propertyReader{}
	for _, l := range lines {
		if err := p.set(l.key, l.value); err != nil {
			return File{}, fmt.Errorf("line %d: %s: %w", l.number, l.key, err)
		}
	}
	return p.file()
}

// propertyName is the form of names of settings: all of Java's and librdkafka's have a dot in them, or are words of small letters.
var propertyName = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*$`)

// property is a setting as it is written.
type property struct {
	number     int
	key, value string
}

// parseProperties reads the form of java.util.Properties, of which librdkafka's key=value lines are a part.
func parseProperties(text string) ([]property, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("not UTF-8 text")
	}
	var out []property
	raw := strings.Split(strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n"), "\n")
	for i := 0; i < len(raw); i++ {
		number := i + 1
		line := strings.TrimLeft(raw[i], " \t\f")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for continues(line) && i+1 < len(raw) {
			i++
			line = line[:len(line)-1] + strings.TrimLeft(raw[i], " \t\f")
		}
		key, value, err := splitProperty(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if !propertyName.MatchString(key) || !strings.ContainsAny(line, "=: \t\f") { // Java takes a word alone for a setting without a value
			return nil, fmt.Errorf("line %d: does not begin with a setting name (not shown, as it may be a secret)", number)
		}
		out = append(out, property{number, key, value})
	}
	return out, nil
}

// continues reports whether a line ends with an odd number of backslashes.
func continues(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// splitProperty divides a line at the first =, : or space that has no backslash before it.
func splitProperty(line string) (key, value string, err error) {
	end := len(line)
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
		} else if strings.IndexByte("=: \t\f", line[i]) >= 0 {
			end = i
			break
		}
	}
	rest := strings.TrimLeft(line[end:], " \t\f")
	if rest != "" && (rest[0] == '=' || rest[0] == ':') {
		rest = strings.TrimLeft(rest[1:], " \t\f")
	}
	// Blanks at the end are nobody's intention, but for those with a backslash before them.
	trimmed := strings.TrimRight(rest, " \t\f")
	if len(trimmed) < len(rest) && continues(trimmed) {
		trimmed = rest[:len(trimmed)+1]
	}
	if key, err = unescape(line[:end]); err == nil {
		value, err = unescape(trimmed)
	}
	return key, value, err
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			break
		}
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			if len(s) < i+5 {
				return "", fmt.Errorf(`\u must be followed by four hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`\u must be followed by four hexadecimal digits`)
			}
			i += 4
			r := rune(n)
			if utf16.IsSurrogate(r) && len(s) > i+6 && s[i+1] == '\\' && s[i+2] == 'u' {
				if m, err := strconv.ParseUint(s[i+3:i+7], 16, 16); err == nil {
					r = utf16.DecodeRune(r, rune(m))
					i += 6
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

// propertyReader collects settings that belong together.
type propertyReader struct {
	f        File
	protocol string
}

// set takes one setting. Its errors have no value in them.
func (p *propertyReader) set(key, value string) error {
	t, s := &p.f.Config.TLS, &p.f.Config.SASL
	switch key {
	case "bootstrap.servers", "metadata.broker.list":
		p.f.Brokers = nil // the last one counts
		for b := range strings.SplitSeq(value, ",") {
			if b = strings.TrimSpace(b); b != "" {
				if _, after, ok := strings.Cut(b, "://"); ok { // SASL_SSL://host:port, as Confluent Cloud shows it
					b = after
				}
				p.f.Brokers = append(p.f.Brokers, b)
			}
		}
	case "client.id":
		p.f.ClientID = value
	case "client.rack":
		p.f.RackID = value
	case "security.protocol":
		p.protocol = strings.ToUpper(value)
		if !slices.Contains([]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, p.protocol) {
			return fmt.Errorf("not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
		}
	case "sasl.mechanism", "sasl.mechanisms":
		s.Mechanism = strings.ToUpper(value)
	case "sasl.username":
		s.Username = value
	case "sasl.password":
		s.Password = value
	case "sasl.jaas.config":
		return p.login(value)
	case "sasl.oauthbearer.token.endpoint.url":
		if after, ok := strings.CutPrefix(value, "file://"); ok {
			s.OAuth.TokenFile = after
		} else {
			s.OAuth.TokenURL = value
		}
	case "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id":
		s.OAuth.ClientID = value
	case "sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret":
		s.OAuth.ClientSecret = value
	case "sasl.oauthbearer.scope":
		s.OAuth.Scopes = strings.Fields(value)
	case "sasl.oauthbearer.extensions":
		for e := range strings.SplitSeq(value, ",") {
			s.OAuth.Extensions = append(s.OAuth.Extensions, strings.TrimSpace(e))
		}
	case "ssl.ca.location":
		t.CAFile = value
	case "ssl.certificate.location":
		t.CertFile = value
	case "ssl.key.location":
		t.KeyFile = value
	case "ssl.truststore.location":
		t.CAFile = value
	case "ssl.keystore.location":
		t.CertFile, t.KeyFile = value, value
	case "ssl.truststore.type", "ssl.keystore.type":
		if !strings.EqualFold(value, "PEM") {
			return fmt.Errorf("spate reads only PEM; to convert, run keytool -importkeystore -srckeystore FILE -destkeystore out.p12 -deststoretype PKCS12, then openssl pkcs12 -in out.p12 -nodes -out FILE.pem")
		}
	case "ssl.key.password", "ssl.keystore.password", "ssl.truststore.password":
		if value != "" {
			return fmt.Errorf("spate reads only files without a password; to decrypt a key, run openssl pkey -in FILE -out key.pem")
		}
	case "enable.ssl.certificate.verification":
		t.InsecureSkipVerify = strings.EqualFold(value, "false")
	case "ssl.endpoint.identification.algorithm":
		if !strings.EqualFold(value, "https") {
			return fmt.Errorf("spate always verifies the host name in a broker's certificate; remove this line, and set the expected name with --tls-server-name, or disable all verification with --tls-insecure-skip-verify")
		}
	case "sasl.login.callback.handler.class", "sasl.client.callback.handler.class", "sasl.oauthbearer.method":
		// The mechanism says what has to be done.
	case "schema.registry.url", "schema.registry.basic.auth.user.info", "basic.auth.user.info", "basic.auth.credentials.source":
		p.f.Registry = append(p.f.Registry, key)
	default:
		if strings.HasPrefix(key, "ssl.") || strings.HasPrefix(key, "sasl.") {
			return fmt.Errorf("unknown security setting; remove it if it is not needed")
		}
		p.f.Ignored = append(p.f.Ignored, key)
	}
	return nil
}

// login takes what Java's login modules are configured with: `Module required name="value" ...;`.
func (p *propertyReader) login(text string) error {
	s := &p.f.Config.SASL
	text = strings.TrimSpace(text)
	module, rest := text, ""
	if i := strings.IndexAny(text, " \t\r\n"); i >= 0 {
		module, rest = text[:i], text[i:]
	}
	module = strings.TrimSuffix(module, ";")
	module = module[strings.LastIndexByte(module, '.')+1:]
	options, err := loginOptions(rest)
	if err != nil {
		return err
	}
	switch module {
	case "PlainLoginModule", "ScramLoginModule":
		s.Username, s.Password = options["username"], options["password"]
	case "OAuthBearerLoginModule":
		for name, value := range options {
			switch ext, isExt := strings.CutPrefix(name, "extension_"); {
			case isExt:
				s.OAuth.Extensions = append(s.OAuth.Extensions, ext+"="+value)
			case name == "clientId":
				s.OAuth.ClientID = value
			case name == "clientSecret":
				s.OAuth.ClientSecret = value
			case name == "scope":
				s.OAuth.Scopes = strings.Fields(value)
			}
		}
		slices.Sort(s.OAuth.Extensions)
	case "IAMLoginModule":
		if options["awsProfileName"] != "" || options["awsRoleArn"] != "" {
			return fmt.Errorf("profiles and roles come from the environment: set AWS_PROFILE, and role_arn in that profile")
		}
	default:
		return fmt.Errorf("the login module is not one of PlainLoginModule, ScramLoginModule, OAuthBearerLoginModule, IAMLoginModule")
	}
	return nil
}

// loginOptions reads `required name="value" name='value' name=value;`.
func loginOptions(text string) (map[string]string, error) {
	out := make(map[string]string)
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" || text[0] == ';' {
			return out, nil
		}
		end := strings.IndexAny(text, "= \t\r\n;")
		if end > 0 && text[end] != ';' { // blanks may stand before the sign
			if rest := strings.TrimLeft(text[end:], " \t\r\n"); strings.HasPrefix(rest, "=") {
				text = text[:end] + rest
			}
		}
		if end < 0 || text[end] != '=' { // a word as required
			if end < 0 {
				return out, nil
			}
			text = text[end:]
			continue
		}
		name := text[:end]
		text = strings.TrimLeft(text[end+1:], " \t\r\n")
		if text != "" && (text[0] == '"' || text[0] == '\'') {
			var value strings.Builder
			i := 1
			for ; i < len(text) && text[i] != text[0]; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				value.WriteByte(text[i])
			}
			if i == len(text) {
				return nil, fmt.Errorf("a quote is not closed")
			}
			out[name], text = value.String(), text[i+1:]
			continue
		}
		if end = strings.IndexAny(text, " \t\r\n;"); end < 0 {
			end = len(text)
		}
		out[name], text = text[:end], text[end:]
	}
}

// file returns what was read, once the protocol says what of it counts.
func (p *propertyReader) file() (File, error) {
	c := &p.f.Config
	switch p.protocol {
	case "", "PLAINTEXT":
		// Without a protocol clients of Java and librdkafka take PLAINTEXT, and nothing of security counts.
		if s := c.SASL; p.protocol == "" && (s.Mechanism != "" || s.Username != "" || s.Password != "" || c.TLS != TLS{}) {
			return File{}, fmt.Errorf("security.protocol is missing, so other clients would use neither TLS nor a login; add security.protocol=SASL_SSL (or SSL, SASL_PLAINTEXT)")
		}
		p.f.Config = Config{}
	case "SSL":
		c.TLS.Enabled = true
		c.SASL = SASL{}
	case "SASL_PLAINTEXT":
		c.TLS = TLS{}
	case "SASL_SSL":
		c.TLS.Enabled = true
	}
	p.f.Login = p.protocol == "SASL_SSL" || p.protocol == "SASL_PLAINTEXT"
	return p.f, nil
}
