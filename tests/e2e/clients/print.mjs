// What a script reports goes to stdout, a line of JSON each.

export const print = (seen) => console.log(JSON.stringify(seen));
