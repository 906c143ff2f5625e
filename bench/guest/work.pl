# SPDX-License-Identifier: Apache-2.0
# Perl's share of the day: hashes, regular expressions, sorting, string building.
use strict;
use warnings;

my (%count, $long);
open(my $in, '<', '/bench/lines') or die;
while (my $line = <$in>) {
    $count{lc $1}++ while $line =~ /\b([a-z]+)\b/gi;
    $long++ if $line =~ /(\w+)\s+\w+\s+\1/;
}
my @top = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 20];
my $text = join ',', map { "$_=$count{$_}" } @top;
my $sum = 0;
for my $n (1 .. 400_000) {
    $sum = ($sum * 31 + $n) % 1_000_003;
}
(my $folded = $text x 200) =~ s/(\d+)/<$1>/g;
print length($folded), " $sum ", $long // 0, " $text\n";
