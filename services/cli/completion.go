package cli

import (
	"fmt"
	"os"
	"strings"

	"spate/shared/terminal"
)

type completionCommand struct {
	Shell string `arg:"" optional:"" help:"Shell: bash, zsh or fish. Default: the one in $$SHELL."`
}

// Help is shown below the usage.
func (completionCommand) Help() string {
	return `To use it, add the line for your shell to its startup file:

  source <(spate completion bash)    # ~/.bashrc
  source <(spate completion zsh)     # ~/.zshrc, after compinit
  spate completion fish | source     # ~/.config/fish/config.fish`
}

// completions are the scripts: each shell asks the program itself what fits, and completes file names where nothing does. %s is the program.
var completions = map[string]string{
	"bash": "complete -o default -C %s spate\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -C %s spate\n",
	"fish": `function __complete_spate
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    %s
end
complete -c spate -a "(__complete_spate)"
`,
}

func (c *completionCommand) Run(e *env) error {
	shell := c.Shell
	if shell == "" {
		path := os.Getenv("SHELL")
		shell = path[strings.LastIndexByte(path, '/')+1:]
	}
	script, ok := completions[shell]
	if !ok {
		return usage(fmt.Errorf("shell: %q is not one of bash, zsh, fish; give one, as in spate completion bash", shell))
	}
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	word := shellWord(path)
	if strings.Contains(script, "-C %s") {
		word = shellWord(word) // it is a command line of its own
	}
	_, err = terminal.Fprintf(e.stdout, script, terminal.Safe(word))
	return err
}
