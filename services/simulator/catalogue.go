package simulator

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"strconv"
)

const categoryCount = 300

// product is what the shop sells, as the text that events carry.
type product struct {
	id, categoryID, categoryCode, brand, price string
}

// catalogue is the shop: products by category, both in the order of their popularity.
type catalogue struct {
	categories [][]product
	cheapest   *product
}

var (
	departments = []string{"electronics", "appliances", "computers", "apparel", "furniture", "auto", "kids", "construction", "sport", "accessories"}
	aisles      = []string{"audio", "kitchen", "environment", "shoes", "living_room", "tools", "bedroom", "components", "peripherals", "toys"}
	shelves     = []string{"headphone", "refrigerators", "vacuum", "smartphone", "sofa", "drill", "keller", "mouse", "notebook", "blocks", "lamp", "tv", "clocks", "bag"}
	syllables   = []string{"al", "be", "co", "da", "el", "fi", "go", "hu", "in", "ka", "lo", "mi", "no", "or", "pa", "ri", "sa", "ti", "vi", "xo"}
)

// newCatalogue makes the catalogue of a seed.
func newCatalogue(seed uint64) *catalogue {
	rng := rand.New(rand.NewPCG(seed, 0x636174616c6f67))
	brands := make([]string, 400)
	for i := range brands {
		for range 2 + rng.IntN(2) {
			brands[i] += syllables[rng.IntN(len(syllables))]
		}
	}
	c := &catalogue{categories: make([][]product, categoryCount)}
	nextProduct, least := 1_000_000+rng.IntN(1_000_000), math.MaxInt
	for i := range c.categories {
		categoryID := strconv.FormatInt(2_053_013_551_000_000_000+int64(i)*8_388_608+rng.Int64N(8_388_608), 10)
		code := ""
		if rng.IntN(3) > 0 { // a third of the data set has none
			code = departments[rng.IntN(len(departments))] + "." + aisles[rng.IntN(len(aisles))] + "." + shelves[rng.IntN(len(shelves))]
		}
		level := 200 + zipf(rng, 150_000) // what things cost here, cents
		own := brands[rng.IntN(len(brands)-12):][:12]
		products := make([]product, 8+rng.IntN(53))
		for j := range products {
			nextProduct += 1 + rng.IntN(300)
			cents := level/2 + rng.IntN(level+1)
			brand := ""
			if rng.IntN(7) > 0 {
				brand = own[zipf(rng, len(own))]
			}
			products[j] = product{
				id:           strconv.Itoa(nextProduct),
				categoryID:   categoryID,
				categoryCode: code,
				brand:        brand,
				price:        strconv.Itoa(cents/100) + "." + string([]byte{byte('0' + cents%100/10), byte('0' + cents%10)}),
			}
			if cents < least {
				least, c.cheapest = cents, &products[j]
			}
		}
		c.categories[i] = products
	}
	rng.Shuffle(len(c.categories), func(i, j int) { c.categories[i], c.categories[j] = c.categories[j], c.categories[i] })
	return c
}

// pick returns a popular category.
func (c *catalogue) pick(rng *rand.Rand) []product { return c.categories[zipf(rng, len(c.categories))] }

// at returns product n of all, counted around.
func (c *catalogue) at(n int) *product {
	category := c.categories[n%len(c.categories)]
	return &category[n/len(c.categories)%len(category)]
}

// zipf returns a number in [0, n) with about the Zipf distribution of exponent 1: every octave 0, 1-2, 3-6, 7-14, ... is equally
// likely, and so is every number within one. It needs integers only, so it gives the same on every platform.
func zipf(rng *rand.Rand, n int) int {
	low := 1<<rng.IntN(bits.Len(uint(n))) - 1
	return low + rng.IntN(min(low+1, n-low))
}

// spread returns a number of nanoseconds from 0 to 4*mean with that mean, mostly small: the product of two uniform numbers.
func spread(rng *rand.Rand, mean int64) int64 {
	a, b := uint64(rng.Uint32()), uint64(rng.Uint32())
	scaled, _ := bits.Mul64(a*b, uint64(4*mean)) // a*b is a fraction of 2^64
	return int64(scaled)
}
