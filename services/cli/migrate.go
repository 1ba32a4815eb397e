package cli

import (
	"encoding/json"
	"time"

	schema "spate/sql"

	"spate/shared/terminal"
)

type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Apply pending migrations, as spate up and spate alert do when they start."`
	Status migrateStatusCommand `cmd:"" help:"Show which migrations are applied, without changing anything."`
}

type migrateFlags struct {
	databaseFlags
	State string `env:"SPATE_STATE" placeholder:"DIR" help:"Directory of the default database. Default: $XDG_STATE_HOME/spate or ~/.local/state/spate."`
}

func (f migrateFlags) target() (database, error) {
	if f.State == "" && f.DatabaseURL == "" {
		var err error
		if f.State, err = stateDir(); err != nil {
			return database{}, err
		}
	}
	db, err := f.database(f.State)
	return db, usage(err)
}

type migrateUpCommand struct{ migrateFlags }

func (c *migrateUpCommand) Run(e *env) error {
	db, err := c.target()
	if err != nil {
		return err
	}
	before, err := db.status(e.ctx)
	if err != nil {
		return err
	}
	st, err := db.open(e.ctx)
	if err != nil {
		return err
	}
	if err := st.Close(); err != nil {
		return err
	}
	pending := 0
	for _, m := range before {
		if m.AppliedAt.IsZero() {
			pending++
		}
	}
	_, err = terminal.Fprintf(e.stdout, "%s is up to date (%d of %d migrations were pending)\n", db.name, pending, len(before))
	return err
}

type migrateStatusCommand struct {
	migrateFlags
	JSON bool `name:"json" help:"Print one JSON line per migration: version, name, state (applied, pending or unknown), applied_at."`
}

func (c *migrateStatusCommand) Run(e *env) error {
	db, err := c.target()
	if err != nil {
		return err
	}
	migrations, err := db.status(e.ctx)
	if err != nil {
		return err
	}
	if !c.JSON {
		terminal.Fprintln(e.stdout, db.name)
	}
	for _, m := range migrations {
		if c.JSON {
			err = json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(struct {
				schema.Migration
				State string `json:"state"`
			}{m, stateOf(m)})
		} else {
			at := ""
			if !m.AppliedAt.IsZero() {
				at = m.AppliedAt.Format(time.RFC3339)
			}
			_, err = terminal.Fprintf(e.stdout, "%05d  %-8s %-20s  %s\n", m.Version, stateOf(m), at, m.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stateOf is "unknown" for what a newer version of spate applied.
func stateOf(m schema.Migration) string {
	switch {
	case m.AppliedAt.IsZero():
		return "pending"
	case m.Name == "":
		return "unknown"
	}
	return "applied"
}
