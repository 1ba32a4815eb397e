package rule

// Column is a column of a table, or a field of a ROW.
type Column struct {
	Name string
	Type Type
}

// Table is what a rule reads: the columns of the events.
type Table struct {
	Name    string
	Columns []Column
	// Time is the number of the column with the event time.
	Time int
	// LatenessMS is how far the watermark stays behind; -1 if the table does not say.
	LatenessMS int64
	// BuiltIn is set for [Activity]: its user_id and its event time are the fields in which the pipeline's settings say they are, whatever their names.
	BuiltIn bool
	// Topic is the topic or stream that the table names; empty if it names none.
	Topic string
}

func (t *Table) column(name string) int {
	for i, c := range t.Columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}
