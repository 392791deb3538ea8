//! Second tries, and what they tell of the first.
