package tests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// template is the CloudFormation template as JSON would have it: !Ref x is {"Ref": x}, !GetAtt a.b is {"Fn::GetAtt": "a.b"}, and so on.
type template struct{ root map[string]any }

func templatePath() string { return filepath.Join("..", "deploy", "aws", "template.yaml") }

func readTemplate(t *testing.T) (template, string) {
	t.Helper()
	text, err := os.ReadFile(templatePath())
	if err != nil {
		t.Fatal(err)
	}
	tpl, err := parseTemplate(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return tpl, string(text)
}

func parseTemplate(text string) (template, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return template{}, err
	}
	v, err := plain(doc.Content[0])
	if err != nil {
		return template{}, err
	}
	return template{v.(map[string]any)}, nil
}

// plain is a node's value without tags.
func plain(n *yaml.Node) (any, error) {
	if name, ok := strings.CutPrefix(n.Tag, "!"); ok && !strings.HasPrefix(n.Tag, "!!") {
		bare := *n
		bare.Tag = ""
		v, err := plain(&bare)
		if name != "Ref" && name != "Condition" {
			name = "Fn::" + name
		}
		return map[string]any{name: v}, err
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if _, ok := m[key]; ok {
				return nil, fmt.Errorf("line %d: %s is there twice", n.Content[i].Line, key)
			}
			v, err := plain(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[key] = v
		}
		return m, nil
	case yaml.SequenceNode:
		l := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := plain(c)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		return l, nil
	case yaml.ScalarNode:
		return n.Value, nil // numbers and booleans as they stand there
	}
	return nil, fmt.Errorf("line %d: a node of kind %d", n.Line, n.Kind)
}

// at follows names and [n] down from v; nil is nothing there.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (t template) resources() map[string]any { m, _ := t.root["Resources"].(map[string]any); return m }

func (t template) property(id string, path ...any) any {
	return at(t.resources()[id], append([]any{"Properties"}, path...)...)
}

func text(v any) string { s, _ := v.(string); return s }

// texts are the strings of one or several.
func texts(v any) []string {
	if l, ok := v.([]any); ok {
		var out []string
		for _, e := range l {
			out = append(out, texts(e)...)
		}
		return out
	}
	if s, ok := v.(string); ok {
		return []string{s}
	}
	if m, ok := v.(map[string]any); ok {
		if s, ok := m["Fn::Sub"].(string); ok {
			return []string{s}
		}
	}
	return []string{fmt.Sprint(v)}
}

// statement of a policy.
type statement struct {
	at    string // resource/Sid
	trust bool   // it says who may take a role on
	body  map[string]any
}

// statements of all policies, those that stand under a condition included.
func (t template) statements() []statement {
	var out []statement
	var walk func(id string, key string, v any)
	walk = func(id, key string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if l, ok := v["Statement"].([]any); ok {
				for _, s := range l {
					body, _ := s.(map[string]any)
					if branches, ok := body["Fn::If"].([]any); ok {
						body, _ = branches[1].(map[string]any)
					}
					out = append(out, statement{id + "/" + text(body["Sid"]), key == "AssumeRolePolicyDocument", body})
				}
				return
			}
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(id, k, v[k])
			}
		case []any:
			for _, e := range v {
				walk(id, key, e)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.resources())) {
		walk(id, "", t.resources()[id])
	}
	return out
}

// starIsNeeded are the statements that may name more than a resource or an action, and why.
var starIsNeeded = map[string]string{
	"TopicKey/Account":          "without it nobody could look after the key; in its own policy * is the key",
	"TopicKey/Alarms":           "in a key's own policy * is the key",
	"WorkerExecutionRole/LogIn": "ecr:GetAuthorizationToken takes no other resource",
	"FlinkRole/FindLogs":        "logs:DescribeLogGroups takes no single group",
}

// encrypted says how what holds data at rest is encrypted: the property that must be there, or "" where AWS always does it.
var encrypted = map[string]string{
	"AWS::Kinesis::Stream": "StreamEncryption",
	"AWS::DynamoDB::Table": "SSESpecification",
	"AWS::S3::Bucket":      "BucketEncryption",
	"AWS::SNS::Topic":      "KmsMasterKeyId",
	"AWS::SQS::Queue":      "SqsManagedSseEnabled",
	"AWS::Logs::LogGroup":  "",
	// Of its code and its environment, which holds no secret.
	"AWS::Lambda::Function": "",
	// Of the application's snapshots.
	"AWS::KinesisAnalyticsV2::Application": "",
}

// noData are the types that hold none.
var noData = []string{
	"AWS::S3::BucketPolicy", "AWS::KMS::Key", "AWS::SNS::TopicPolicy", "AWS::SNS::Subscription", "AWS::IAM::Role", "AWS::Lambda::EventSourceMapping",
	"AWS::ECS::Cluster", "AWS::ECS::TaskDefinition", "AWS::ECS::Service", "AWS::EC2::SecurityGroup", "AWS::Logs::LogStream",
	"AWS::KinesisAnalyticsV2::ApplicationCloudWatchLoggingOption", "AWS::CloudWatch::Alarm", "AWS::Events::Rule", "AWS::Lambda::Permission",
}

// problems are what the template has against the rules that it is held to.
func (t template) problems() []string {
	var out []string
	problem := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }

	used := make(map[string]bool)
	for _, s := range t.statements() {
		if text(s.body["Effect"]) != "Allow" {
			continue
		}
		_, excepted := starIsNeeded[s.at]
		used[s.at] = true
		for _, a := range texts(s.body["Action"]) {
			if strings.Contains(a, "*") && s.at != "TopicKey/Account" {
				problem("%s allows %s", s.at, a)
			}
		}
		for _, r := range texts(s.body["Resource"]) {
			if strings.Contains(r, "*") && !excepted {
				problem("%s allows it on %s", s.at, r)
			}
			if r == "*" && s.body["Condition"] == nil && s.at != "TopicKey/Account" {
				problem("%s allows it on everything, without a condition", s.at)
			}
		}
		for _, k := range []string{"NotAction", "NotResource", "NotPrincipal"} {
			if s.body[k] != nil {
				problem("%s has %s", s.at, k)
			}
		}
		for _, a := range texts(s.body["Action"]) {
			if strings.HasPrefix(a, "kms:") && !strings.HasPrefix(s.at, "TopicKey/") && at(s.body, "Condition", "StringEquals", "kms:ViaService") == nil {
				problem("%s allows %s by other services than the one that needs it", s.at, a)
			}
		}
		// Lambda passes no account on when it takes a role on.
		if s.trust && !slices.Contains(texts(at(s.body, "Principal", "Service")), "lambda.amazonaws.com") && at(s.body, "Condition", "StringEquals", "aws:SourceAccount") == nil {
			problem("%s can be taken on in the name of another account", s.at)
		}
		if principal := s.body["Principal"]; principal == "*" || at(principal, "AWS") == "*" {
			problem("%s lets everybody in", s.at)
		}
	}
	for s := range starIsNeeded {
		if !used[s] {
			problem("%s is excepted, and not there", s)
		}
	}

	for id, r := range t.resources() {
		kind := text(at(r, "Type"))
		property, holds := encrypted[kind]
		if !holds && !slices.Contains(noData, kind) {
			problem("%s is of type %s: say in this test how it is encrypted", id, kind)
		}
		if property != "" && t.property(id, property) == nil {
			problem("%s is not encrypted: no %s", id, property)
		}
		switch kind {
		case "AWS::IAM::Role":
			if t.property(id, "ManagedPolicyArns") != nil || t.property(id, "RoleName") != nil {
				problem("%s has policies of others, or a name", id)
			}
		case "AWS::Logs::LogGroup":
			if t.property(id, "RetentionInDays") == nil {
				problem("%s keeps everything for ever", id)
			}
		case "AWS::CloudWatch::Alarm":
			// Key and topic let alarms in by this name.
			if name := texts(t.property(id, "AlarmName"))[0]; !strings.HasPrefix(name, "${AWS::StackName}-") {
				problem("%s is called %s", id, name)
			}
			if at(t.property(id, "AlarmActions"), 0, "Ref") != "OperatorsTopic" {
				problem("%s tells nobody", id)
			}
			if t.property(id, "TreatMissingData") == nil {
				problem("%s does not say what it means to hear nothing", id)
			}
		case "AWS::SQS::Queue", "AWS::DynamoDB::Table":
			for _, p := range []string{"SqsManagedSseEnabled"} {
				if v := t.property(id, p); v != nil && v != "true" {
					problem("%s is not encrypted: %s is %v", id, p, v)
				}
			}
			if v := t.property(id, "SSESpecification", "SSEEnabled"); kind == "AWS::DynamoDB::Table" && v != "true" {
				problem("%s is not encrypted: SSEEnabled is %v", id, v)
			}
		}
	}
	for _, id := range []string{"AlertsTable", "DataBucket"} {
		for _, p := range []string{"DeletionPolicy", "UpdateReplacePolicy"} {
			if at(t.resources()[id], p) != "Retain" {
				problem("%s: %s is not Retain", id, p)
			}
		}
	}
	for _, p := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
		if t.property("DataBucket", "PublicAccessBlockConfiguration", p) != "true" {
			problem("DataBucket: %s is not true", p)
		}
	}
	slices.Sort(out)
	return out
}

// TestTemplatePolicy: least privilege, encryption, and what must outlive the stack.
func TestTemplatePolicy(t *testing.T) {
	tpl, source := readTemplate(t)
	for _, p := range tpl.problems() {
		t.Error(p)
	}
	if n := len(tpl.statements()); n < 25 {
		t.Errorf("only %d statements were found", n)
	}

	// What the check would be worth if it found nothing.
	for _, seed := range []struct{ old, new, want string }{
		{`Action: "sns:Publish", Resource: !Ref AlertsTopic`, `Action: "sns:*", Resource: !Ref AlertsTopic`, "AlerterRole/Tell allows sns:*"},
		{`Action: "sns:Publish", Resource: !Ref AlertsTopic`, `Action: "sns:Publish", Resource: "*"`, "AlerterRole/Tell allows it on *"},
		{`, Condition: {StringEquals: {"aws:RequestedRegion": !Ref "AWS::Region"}}`, ``, "WorkerExecutionRole/LogIn allows it on everything"},
		{`, SqsManagedSseEnabled: true`, ``, "AlerterDeadLetters is not encrypted"},
		{`      SSESpecification: {SSEEnabled: true}`, `      SSESpecification: {SSEEnabled: false}`, "AlertsTable is not encrypted"},
		{`Resource: !GetAtt AsideStream.Arn}`, `Resource: !Sub "${AsideStream.Arn}*"}`, "WorkerRole/WriteAside allows it on"},
		{`{"kms:ViaService": !Sub "sns.${AWS::Region}.amazonaws.com"}`, `{"kms:CallerAccount": !Ref "AWS::AccountId"}`, "AlerterRole/TellEncrypted allows kms:Decrypt by"},
		{`BlockPublicPolicy: true`, `BlockPublicPolicy: false`, "DataBucket: BlockPublicPolicy"},
		{`      AlarmName: !Sub "${AWS::StackName}-worker-gone"`, `      AlarmName: worker-gone`, "WorkerGone is called"},
	} {
		if !strings.Contains(source, seed.old) {
			t.Errorf("the template has no %q to break", seed.old)
			continue
		}
		broken, err := parseTemplate(strings.Replace(source, seed.old, seed.new, 1))
		if err != nil {
			t.Errorf("%q: %v", seed.new, err)
			continue
		}
		if found := broken.problems(); !slices.ContainsFunc(found, func(p string) bool { return strings.HasPrefix(p, seed.want) }) {
			t.Errorf("%q instead of %q was not found; found %q", seed.new, seed.old, found)
		}
	}
}
