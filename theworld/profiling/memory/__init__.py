"""Who owns each block of memory when a step needs the most of it, from the allocator's own history."""
